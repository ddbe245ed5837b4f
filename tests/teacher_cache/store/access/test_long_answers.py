"""Answers to a request for a range that have more bytes than the range are refused, whatever the client."""

import pytest
from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from hostile import HostileServer
from medalign.errors import StoreError
from medalign.teacher_cache.store.access.remote import RemoteFiles
from medalign.teacher_cache.store.access.server_limits import Budget, Limits
from medalign.teacher_cache.store.access.transports import OddAnswer, read_parts

LIMITS = Limits(pauses=(0.0,))
BYTES = bytes(range(100))


class Plain(AbstractFileSystem):
    """Returns `extra` bytes more than requested."""

    extra = 0

    def cat_file(self, path, start=None, end=None, **_):
        return BYTES[start : end + self.extra]


class Asynchronous(AsyncFileSystem):
    extra = 0

    async def _cat_file(self, path, start=None, end=None, **_):
        return BYTES[start : end + self.extra]


@pytest.mark.parametrize("client", [Plain, Asynchronous])
def test_clients_of_other_protocols(client, monkeypatch):
    filesystem = client(skip_instance_cache=True)
    ranges = [("s.zarr/x", 0, 10), ("s.zarr/x", 95, 10), ("s.zarr/x", 5, 0)]
    found = read_parts(filesystem, "other", ranges, Budget(LIMITS))
    assert [bytes(data) for data in found] == [BYTES[:10], BYTES[95:], b""]
    monkeypatch.setattr(client, "extra", 1)
    first, second, third = read_parts(filesystem, "other", ranges, Budget(LIMITS))
    assert isinstance(first, OddAnswer)
    assert str(first) == "the server sends more than the allowed 10 bytes"
    assert bytes(second) == BYTES[95:], "the file ends before the range does"
    assert isinstance(third, OddAnswer)


@pytest.mark.parametrize("client", [Plain, Asynchronous])
def test_many_ranges_are_answered_in_order(client):
    ranges = [("s.zarr/x", start, 3) for start in range(40)]
    found = read_parts(client(skip_instance_cache=True), "other", ranges, Budget(LIMITS))
    assert [bytes(data) for data in found] == [BYTES[start : start + 3] for start in range(40)]


def test_a_server_that_stops_serving_ranges_is_reported():
    answers = iter([b"206 Partial Content\r\nContent-Length: 1\r\n\r\nx", b"200 OK\r\nContent-Length: 3\r\n\r\nxyz"])
    expected = pytest.raises(StoreError, match="ignores range requests, so reading a row would download a whole shard")
    with HostileServer(lambda _: [b"HTTP/1.1 " + next(answers)]) as server, expected:
        RemoteFiles(f"{server.url}/s.zarr").read_ranges([("x", 0, 2)])


@pytest.mark.parametrize("surplus", [0, 1])
@pytest.mark.parametrize("announced", [True, False])
def test_http(announced, surplus):
    body = BYTES[: 10 + surplus]

    def answer(_: str) -> list[bytes]:
        if announced:
            return [b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n\r\n" % len(body), body]
        return [b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\n\r\n", body]

    with HostileServer(answer) as server:
        connection = RemoteFiles(f"{server.url}/s.zarr")._connection
        (found,) = read_parts(connection.filesystem, "http", [(connection.path("x"), 0, 10)], connection.budget)
    assert isinstance(found, OddAnswer) if surplus else bytes(found) == body

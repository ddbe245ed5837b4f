"""Servers that are endless, silent, slow or compressing: each ends in a clean error, in bounded time and memory."""

import time
from pathlib import Path

import hostile
import pytest
from fsspec.asyn import sync
from hostile import HostileServer
from medalign.errors import StoreError
from medalign.teacher_cache.store.access.remote import RemoteFiles
from medalign.teacher_cache.store.access.server_limits import Budget, Limits

QUICK = Limits(
    connect=1.0,
    silence=0.4,
    request_rate=1e6,
    pauses=(0.0,),
    whole_file=1 << 20,
    message=1 << 20,
    command=30.0,
)


def _largest_buffer(name: str) -> int:
    """The size in bytes up to which Linux lets a buffer of a TCP connection grow, or a guess on other systems."""
    setting = Path("/proc/sys/net/ipv4", name)
    return int(setting.read_text().split()[-1]) if setting.exists() else 32 << 20


ROOM = 2 * ((2 << 20) + _largest_buffer("tcp_rmem") + _largest_buffer("tcp_wmem"))
"""Bytes that a server gets rid of in two attempts: the ones that the client takes, and those in the two buffers of each
connection, which nobody may ever read. A client without a limit takes gigabytes."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("medalign.teacher_cache.store.access.connection.LIMITS", QUICK)


@pytest.fixture
def as_s3(monkeypatch, tmp_path):
    """Credentials from the environment, and no configuration file of this machine's user."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "do-not-print-me")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    return monkeypatch


def s3_files(as_s3, server: HostileServer) -> RemoteFiles:
    """Files with a client that is set up already, because the setup may exceed the limits of these tests."""
    as_s3.setenv("AWS_ENDPOINT_URL", server.url)
    files = RemoteFiles("s3://lab/store.zarr")
    filesystem = files._connection.filesystem
    sync(filesystem.loop, filesystem.set_session)
    return files


def files_of(as_s3, server: HostileServer, protocol: str) -> RemoteFiles:
    return s3_files(as_s3, server) if protocol == "s3" else RemoteFiles(f"{server.url}/store.zarr")


WHOLE = [
    (hostile.endless, "more than the allowed 1 MiB"),
    (hostile.huge, "more than the allowed 1 MiB"),
    (hostile.endless_error, "does not respond"),
    (hostile.endless_header, "does not respond|Too many headers"),
    (hostile.drip, "does not respond .*bytes arrived in"),
    (hostile.drip_header, "does not respond .*bytes arrived in"),
    (hostile.silent, "does not respond"),
    (hostile.falls_silent, "does not respond"),
    (hostile.cuts, "does not respond"),
    (hostile.gzip_bomb, "compresses the response .gzip"),
    (hostile.redirects, "redirects 5 times or more|does not respond .*Server disconnected"),  # aiohttp's wording
]


def names(cases):
    return [answer.__name__ for answer, _ in cases]


@pytest.mark.parametrize(("answer", "expected"), WHOLE, ids=names(WHOLE))
def test_bad_http_servers_give_a_clean_error(answer, expected):
    with HostileServer(answer) as server:
        files = RemoteFiles(f"{server.url}/store.zarr")
        began = time.monotonic()
        with pytest.raises(StoreError, match=expected):
            files.read("zarr.json")
        assert time.monotonic() - began < 5
        assert server.sent < ROOM
        assert server.requests <= 2 * 6, "two attempts, or one with its redirects"


PARTS = [
    (hostile.endless_part, "more than the allowed 100 bytes"),
    (hostile.endless, "ignores range requests"),
    (hostile.drip, "does not respond|more than the allowed 100 bytes"),
    (hostile.silent, "does not respond"),
    (hostile.cuts, "does not respond|more than the allowed 100 bytes"),
]


@pytest.mark.parametrize(
    ("protocol", "answer", "expected"),
    [*(("http", *case) for case in PARTS), *(("s3", *case) for case in PARTS[:2])],
    ids=[*names(PARTS), *(f"s3_{name}" for name in names(PARTS[:2]))],
)
def test_ranged_reads_are_bounded(as_s3, protocol, answer, expected):
    with HostileServer(answer) as server:
        files = files_of(as_s3, server, protocol)
        files._has_ranges = True
        began = time.monotonic()
        with pytest.raises(StoreError, match=expected) as refused:
            files.read_ranges([("E_v/c/0/0/0", 10 * part, 100) for part in range(3)])
        assert time.monotonic() - began < 5
        assert server.sent < 3 * ROOM
        assert server.requests <= 2 * 3
        assert "do-not-print-me" not in str(refused.value)


S3_CASES = [
    case
    for case in WHOLE
    if case[0] in (hostile.endless, hostile.endless_error, hostile.drip, hostile.silent, hostile.cuts)
]


@pytest.mark.parametrize(("answer", "expected"), S3_CASES, ids=names(S3_CASES))
def test_bad_s3_servers_give_a_clean_error(as_s3, answer, expected):
    with HostileServer(answer) as server:
        files = s3_files(as_s3, server)
        began = time.monotonic()
        with pytest.raises(StoreError, match=expected):
            files.read("zarr.json")
        assert time.monotonic() - began < 5
        assert server.sent < ROOM
        assert server.requests == (1 if "more than" in expected else 2), "the attempts are those of the message"


@pytest.mark.parametrize("protocol", ["http", "s3"])
def test_size_requests_are_bounded_in_time(as_s3, protocol):
    for answer in (hostile.silent, hostile.drip_header)[: 2 if protocol == "http" else 1]:
        with HostileServer(answer) as server:
            files = files_of(as_s3, server, protocol)
            with pytest.raises(StoreError, match=r"does not respond \(zarr.json, 2 attempts in [0-3] s\)"):
                files.size("zarr.json")
            assert server.requests == 2


def test_server_messages_are_shown_without_control_characters_and_secrets():
    with HostileServer(hostile.talks) as server, pytest.raises(StoreError, match="rejects the request: 418") as refused:
        RemoteFiles(f"{server.url}/store.zarr").read("zarr.json")
    assert "\x1b" not in str(refused.value)
    assert "do-not-print-me" not in str(refused.value)


# ---- the budget of a command


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_waiting_time_is_bounded_by_requests_and_bytes():
    clock = Clock()
    budget = Budget(Limits(command=600.0, command_request=1.0, command_rate=65536.0), clock)
    with budget.waiting(), budget.waiting():  # overlapping blocks count once
        clock.now += 100
    clock.now += 10_000  # computing
    assert budget.left() == 500
    budget.answer(3)
    budget.move(64 * 1024 * 7)
    assert budget.left() == 510
    with budget.waiting():
        clock.now += 511
        assert budget.left() == -1


def test_retries_are_bounded_per_command():
    budget = Budget(Limits(repeats=3, repeats_share=0.1))
    assert [budget.repeat() for _ in range(5)] == [True, True, True, False, False]
    budget.answer(20)
    assert [budget.repeat() for _ in range(3)] == [True, True, False]


def test_a_server_that_uses_up_the_budget_ends_the_command(monkeypatch):
    limits = Limits(silence=30.0, command=0.1, pauses=(0.0,) * 9)
    monkeypatch.setattr("medalign.teacher_cache.store.access.connection.LIMITS", limits)
    with HostileServer(hostile.drip) as server, pytest.raises(StoreError, match=r"is too slow .*docs/sharing\.md"):
        RemoteFiles(f"{server.url}/store.zarr").read("zarr.json")

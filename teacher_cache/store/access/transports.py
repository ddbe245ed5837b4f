"""Server responses, read with limits on size and time, which fsspec's clients do not have.

HTTP and S3 bodies are read in pieces, and reading stops when they are too long or too slow. Other protocols (gs, hf)
are read through fsspec with a time limit.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from ....errors import StoreError
from ....plain_text import size_text
from .server_limits import Budget, TooSlow

T = TypeVar("T")

HTTP: Final = ("http", "https")
S3: Final = ("s3", "s3a")
REQUESTS_AT_ONCE: Final = 16
_PIECE: Final = 1 << 18

_NOT_FOUND, _NO_METHOD, _PAST_THE_END, _PARTIAL = (404, 410), (405, 501), 416, 206

RemoteRange = tuple[str, int, int]
"""Path of a file in the filesystem, first byte, number of bytes."""


class IgnoresRanges(StoreError):
    """The server sends a whole file in response to a range request."""


class OddAnswer(StoreError):
    """A response that cannot be the file's bytes: it is compressed, or longer than allowed."""


class Meter:
    """Time and bytes of one response; each byte that arrives extends the time limit."""

    def __init__(self, budget: Budget, length: int = 0) -> None:
        self._budget, self.redirects = budget, budget.limits.redirects
        self._began = time.monotonic()
        self._allowed = budget.limits.request_time(length)
        self._scope: asyncio.Timeout | None = None
        self.arrived = 0

    def left(self) -> float:
        own = self._allowed + self.arrived / self._budget.limits.request_rate - (time.monotonic() - self._began)
        return max(0.0, min(own, self._budget.left()))

    def receive(self, size: int) -> None:
        """Count bytes that arrived."""
        self.arrived += size
        self._budget.move(size)
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time() + self.left())

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` within the time limit.

        Raises:
            TooSlow: it took longer.
        """
        try:
            async with asyncio.timeout(self.left()) as self._scope:
                return await work
        except TimeoutError as error:
            if self._scope is not None and self._scope.expired():
                raise self.too_slow() from error
            raise
        finally:
            self._scope = None

    def too_slow(self) -> TooSlow:
        return TooSlow(f"{size_text(self.arrived)} arrived in {time.monotonic() - self._began:.1f} seconds")


def read_whole(filesystem: Any, protocol: str, path: str, budget: Budget) -> bytes:
    """Read a whole file of at most `limits.whole_file` bytes.

    Raises:
        FileNotFoundError: the file does not exist.
        OddAnswer: it is larger, or the response is compressed.
        TooSlow: the response is too slow.
    """
    limit = budget.limits.whole_file
    meter = Meter(budget)
    if protocol in HTTP:
        return _sync(filesystem, meter, lambda: _http_get(filesystem, path, None, limit, meter))
    if protocol in S3:
        return _sync(filesystem, meter, lambda: _s3_get(filesystem, path, None, limit, meter))
    size = file_size(filesystem, protocol, path, budget)
    if size is not None and size > limit:
        raise _too_long(limit)
    return bytes(_call(filesystem, "cat_file", Meter(budget, size or 0), path))


def file_size(filesystem: Any, protocol: str, path: str, budget: Budget) -> int | None:
    """Size of a file in bytes; `None` if the server does not report it.

    Raises:
        FileNotFoundError: the file does not exist.
        OddAnswer: the response is compressed.
        TooSlow: the response is too slow.
    """
    meter = Meter(budget)
    if protocol in HTTP:
        return _sync(filesystem, meter, lambda: _http_size(filesystem, path, budget.limits.redirects))
    size = _call(filesystem, "info", meter, path).get("size")
    return None if size is None else int(size)


def read_parts(filesystem: Any, protocol: str, ranges: Sequence[RemoteRange], budget: Budget) -> list[Any]:
    """The bytes of each range, or the exception that reading it raised; a range past the end of its file is empty."""
    if not filesystem.async_impl:
        return _in_threads(filesystem, ranges, budget)
    from fsspec.asyn import sync

    async def gather() -> list[Any]:
        slots = asyncio.Semaphore(REQUESTS_AT_ONCE)

        async def part(path: str, start: int, length: int) -> bytes:
            async with slots:
                meter = Meter(budget, 0 if protocol in (*HTTP, *S3) else length)
                return await meter.run(_part(filesystem, protocol, (path, start, length), meter))

        return await asyncio.gather(*(part(*each) for each in ranges), return_exceptions=True)

    return list(sync(filesystem.loop, gather))


def call(filesystem: Any, name: str, budget: Budget, *arguments: Any, length: int = 0, **options: Any) -> Any:
    """Call a filesystem method that transfers `length` bytes, within the time limit for that many bytes.

    Raises:
        TooSlow: it took longer.
    """
    return _call(filesystem, name, Meter(budget, length), *arguments, **options)


async def _part(filesystem: Any, protocol: str, part: RemoteRange, meter: Meter) -> bytes:
    path, start, length = part
    if protocol in HTTP:
        return await _http_get(filesystem, path, start, length, meter)
    if protocol in S3:
        return await _s3_get(filesystem, path, start, length, meter)
    data: bytes = await filesystem._cat_file(path, start, start + length)
    meter.receive(len(data))
    return _limited(data, length)


async def _http_get(filesystem: Any, url: str, start: int | None, length: int, meter: Meter) -> bytes:
    """Read a file of up to `length` bytes, or `length` bytes of it starting at `start`."""
    session = await filesystem.set_session()
    headers = {"Accept-Encoding": "identity"}  # byte ranges do not apply to a compressed response
    if start is not None:
        headers["Range"] = f"bytes={start}-{start + length - 1}"
    async with session.get(filesystem.encode_url(url), headers=headers, max_redirects=meter.redirects) as answer:
        if start is not None and answer.status == _PAST_THE_END:
            return b""
        _check_answer(answer, url)
        if start is not None and answer.status != _PARTIAL:
            raise IgnoresRanges("the server ignores range requests")
        return await _collect(answer.content.read, length, meter, answer.content_length)


async def _http_size(filesystem: Any, url: str, redirects: int) -> int | None:
    """Size from a HEAD request, or from a request for one byte if HEAD does not give it."""
    session = await filesystem.set_session()
    headers = {"Accept-Encoding": "identity"}
    async with session.head(
        filesystem.encode_url(url), headers=headers, allow_redirects=True, max_redirects=redirects
    ) as answer:
        if answer.status not in _NO_METHOD:
            _check_answer(answer, url)
            if "Content-Length" in answer.headers:
                return int(answer.headers["Content-Length"])
    headers["Range"] = "bytes=0-0"
    async with session.get(filesystem.encode_url(url), headers=headers, max_redirects=redirects) as answer:
        _check_answer(answer, url)
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isdecimal() else None


def _check_answer(answer: Any, url: str) -> None:
    if answer.status in _NOT_FOUND:
        raise FileNotFoundError(url)
    answer.raise_for_status()
    if (encoding := answer.headers.get("Content-Encoding", "identity")) not in ("identity", ""):
        raise OddAnswer(
            f"the server compresses the response ({encoding}) although the request forbids it, so the file's bytes "
            "cannot be read: turn compression off for the store's folder"
        )


async def _s3_get(filesystem: Any, path: str, start: int | None, length: int, meter: Meter) -> bytes:
    """`_http_get` for an S3 object: its stored bytes, whatever its Content-Encoding."""
    bucket, key, _ = filesystem.split_path(path)
    part = {} if start is None else {"Range": f"bytes={start}-{start + length - 1}"}
    answer = await filesystem._call_s3("get_object", Bucket=bucket, Key=key, **part)
    body = answer["Body"]
    try:
        if start is not None and answer["ResponseMetadata"]["HTTPStatusCode"] != _PARTIAL:
            raise IgnoresRanges("the server ignores range requests")
        return await _collect(body.read, length, meter, answer.get("ContentLength"))
    finally:
        body.close()


async def _collect(
    read: Callable[[int], Awaitable[bytes]], limit: int, meter: Meter, announced: int | None = None
) -> bytes:
    if announced is not None and announced > limit:
        raise _too_long(limit)
    data = bytearray()
    while piece := await read(min(_PIECE, limit + 1 - len(data))):
        data += piece
        meter.receive(len(piece))
        if len(data) > limit:
            raise _too_long(limit)
    return bytes(data)


def _limited(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise _too_long(limit)
    return data


def _too_long(limit: int) -> OddAnswer:
    return OddAnswer(f"the server sends more than the allowed {size_text(limit)}")


def _sync(filesystem: Any, meter: Meter, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    from fsspec.asyn import sync

    result: T = sync(filesystem.loop, lambda: meter.run(work()))
    return result


def _call(filesystem: Any, name: str, meter: Meter, *arguments: Any, **options: Any) -> Any:
    if filesystem.async_impl:
        return _sync(filesystem, meter, lambda: getattr(filesystem, f"_{name}")(*arguments, **options))
    return _wait(_start(lambda: getattr(filesystem, name)(*arguments, **options)), meter)


class _Task(threading.Thread):
    """A call that may never return. It is a daemon thread, so it does not keep the process alive."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.result: Any = None

    def run(self) -> None:
        try:
            self.result = self._work()
        except Exception as error:
            self.result = error


def _start(work: Callable[[], Any]) -> _Task:
    task = _Task(work)
    task.start()
    return task


def _wait(task: _Task, meter: Meter) -> Any:
    task.join(meter.left())
    if task.is_alive():
        raise meter.too_slow()
    if isinstance(task.result, Exception):
        raise task.result
    return task.result


def _in_threads(filesystem: Any, ranges: Sequence[RemoteRange], budget: Budget) -> list[Any]:
    """`read_parts` for filesystems that are not asynchronous."""
    answers: list[Any] = []
    for first in range(0, len(ranges), REQUESTS_AT_ONCE):
        group = ranges[first : first + REQUESTS_AT_ONCE]
        meters = [Meter(budget, length) for _, _, length in group]
        tasks = [_start(_part_of(filesystem, *part)) for part in group]
        answers += [
            _answer(task, meter, length) for task, meter, (_, _, length) in zip(tasks, meters, group, strict=True)
        ]
    return answers


def _part_of(filesystem: Any, path: str, start: int, length: int) -> Callable[[], bytes]:
    return lambda: bytes(
        filesystem.cat_file(path, start, start + length, cache_type="none")
    )  # other cache types read 5 MB ahead


def _answer(task: _Task, meter: Meter, length: int) -> Any:
    try:
        data = _wait(task, meter)
        meter.receive(len(data))
        return _limited(data, length)
    except Exception as error:
        return error

"""A server that answers badly, over HTTP or as S3: it writes to the socket what it likes, until the client leaves."""

import gzip
import socketserver
import threading
from collections.abc import Callable, Iterator
from functools import cache
from itertools import repeat

PIECE = b"x" * 65536
DRIP = 0.01
"""Seconds between two bytes of a server that drips; tests give it a limit below."""


def _head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def _chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)


def endless(_: str) -> Iterator[bytes]:
    """Chunks without end."""
    yield _head("200 OK", "Transfer-Encoding: chunked")
    yield from _chunked(repeat(PIECE))


def endless_part(_: str) -> Iterator[bytes]:
    """More than the part that was asked for, without end."""
    yield _head("206 Partial Content", "Transfer-Encoding: chunked")
    yield from _chunked(repeat(PIECE))


def endless_error(_: str) -> Iterator[bytes]:
    """An error page without end."""
    yield _head("500 Internal Server Error", "Transfer-Encoding: chunked")
    yield from _chunked(repeat(PIECE))


def endless_header(_: str) -> Iterator[bytes]:
    """Header lines without end."""
    yield b"HTTP/1.1 200 OK\r\n"
    yield from (b"X-%d: %b\r\n" % (number, b"y" * 60) for number in range(1 << 62))


def huge(_: str) -> Iterator[bytes]:
    """A length that no disk has."""
    yield _head("200 OK", f"Content-Length: {10**18}")


def drip(_: str) -> Iterator[bytes]:
    """A promised body, byte by byte; the pauses are the handler's."""
    yield _head("206 Partial Content", "Content-Length: 1000000")
    yield from repeat(b"x")


def drip_header(_: str) -> Iterator[bytes]:
    """A header, byte by byte."""
    yield from (b"%c" % letter for letter in _head("200 OK", *("X-A: b" for _ in range(1 << 16))))


def silent(_: str) -> Iterator[bytes]:
    """Nothing, for as long as the client stays."""
    yield b""


def falls_silent(_: str) -> Iterator[bytes]:
    """Half a body, then nothing."""
    yield _head("206 Partial Content", "Content-Length: 1000") + b"x" * 500
    yield b""


def gzip_bomb(_: str) -> Iterator[bytes]:
    """A few kilobytes that become many megabytes."""
    body = _bomb()
    yield _head("200 OK", "Content-Encoding: gzip", f"Content-Length: {len(body)}") + body


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(16 << 20), 9)


def redirects(path: str) -> Iterator[bytes]:
    """Another address, each time."""
    yield _head("302 Found", f"Location: {path}x", "Content-Length: 0")


def cuts(_: str) -> Iterator[bytes]:
    """Less than it promised."""
    yield _head("206 Partial Content", "Content-Length: 1000", "Connection: close") + b"x" * 10


def talks(_: str) -> Iterator[bytes]:
    """An error whose reason is meant for the terminal, and holds a signature."""
    yield _head(
        "418 \x1b]0;owned\x07https://u:do-not-print-me@h/x?X-Amz-Signature=do-not-print-me", "Content-Length: 0"
    )


DRIPPING = (drip, drip_header)
STAYING = (silent, falls_silent)


class HostileServer(socketserver.ThreadingTCPServer):
    """Answers every request in one way."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[str], Iterator[bytes]], drip: float = DRIP) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.drip = answer, drip
        self.requests = 0
        self.sent = 0
        self.counting = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "HostileServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """The client left."""


class _Handler(socketserver.StreamRequestHandler):
    server: HostileServer

    def handle(self) -> None:
        first = self.rfile.readline().decode()
        while self.rfile.readline().strip():
            pass
        with self.server.counting:
            self.server.requests += 1
        answer = self.server.answer
        for piece in answer(first.split()[1] if first.split() else "/"):
            self.wfile.write(piece)
            self.server.sent += len(piece)
            if answer in DRIPPING and self.server.closing.wait(self.server.drip):
                return
        if answer in STAYING:
            self.server.closing.wait()

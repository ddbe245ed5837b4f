"""Limits on waiting for a server, on the bytes read from it, and on retries; documented in docs/sharing.md."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits for one server. Times are in seconds, sizes in bytes, rates in bytes per second."""

    connect: float = 15.0
    """Timeout for connecting."""
    silence: float = 60.0
    """Timeout without a byte. A response may take this long plus the time for its bytes at `request_rate`."""
    request_rate: float = 4 * 1024.0
    """Lowest rate of one response among 16 concurrent ones; slower ones are aborted."""
    pauses: tuple[float, ...] = (0.2, 1.0, 4.0)
    """Pauses between the attempts of one request; there is one attempt more than pauses."""
    redirects: int = 5
    whole_file: int = 64 * MIB
    """Largest file that is read whole; larger ones are read in ranges of known length."""
    message: int = 8 * MIB
    """Largest response that is not a file, such as a listing or an error."""
    command: float = 600.0
    """Total waiting time for a server, in addition to the two terms below."""
    command_request: float = 1.0
    """Added to the total for each response."""
    command_rate: float = 64 * 1024.0
    """Rate at which transferred bytes add to the total."""
    repeats: int = 40
    """Retries of all requests together, in addition to the share below."""
    repeats_share: float = 0.1
    """Retries added for each response."""

    def request_time(self, length: int = 0) -> float:
        """The longest time that a response of `length` bytes may take."""
        return self.silence + length / self.request_rate


LIMITS: Final = Limits()


class TooSlow(Exception):
    """A response took too long for its size. Not a TimeoutError, which fsspec would replace with its own."""


class Budget:
    """The waiting time and the retries that one process has left for one server. Threads share it."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self._clock = limits, clock
        self._lock = threading.Lock()
        self._active, self._since, self._waited = 0, 0.0, 0.0
        self._credit = limits.command
        self.answered, self.repeated, self.moved = 0, 0, 0
        self.process = os.getpid()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent in the block; overlapping blocks count once."""
        with self._lock:
            if not self._active:
                self._since = self._clock()
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
                if not self._active:
                    self._waited += self._clock() - self._since

    def answer(self, requests: int = 1) -> None:
        """Record that requests got a response."""
        with self._lock:
            self.answered += requests
            self._credit += requests * self.limits.command_request

    def move(self, size: int) -> None:
        """Record bytes that have arrived or are about to be sent."""
        with self._lock:
            self.moved += size
            self._credit += size / self.limits.command_rate

    def repeat(self) -> bool:
        """Whether a request may be retried; counts the retry."""
        with self._lock:
            allowed = self.repeated < self.limits.repeats + self.limits.repeats_share * self.answered
            self.repeated += allowed
            return allowed

    def waited(self) -> float:
        with self._lock:
            return self._waited + (self._clock() - self._since if self._active else 0.0)

    def left(self) -> float:
        """Seconds of waiting time left."""
        return self._credit - self.waited()

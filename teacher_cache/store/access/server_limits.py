"""How long a server is waited for, how much of it is read, how often it is asked again; stated in docs/sharing.md."""

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
    """Bounds on one server. Times in seconds, sizes in bytes, rates in bytes a second."""

    connect: float = 15.0
    """Until a connection stands."""
    silence: float = 60.0
    """Without a byte, and for an answer beside the time that its bytes may take."""
    request_rate: float = 4 * 1024.0
    """Of one answer, among 16 at once; slower ones are given up."""
    pauses: tuple[float, ...] = (0.2, 1.0, 4.0)
    """Between the attempts of one request, of which there is one more than pauses."""
    redirects: int = 5
    whole_file: int = 64 * MIB
    """Largest file that is read as a whole; larger ones are read in ranges of known length."""
    message: int = 8 * MIB
    """Largest answer that is no file: a list, an error."""
    command: float = 600.0
    """Waiting for a server, all in all, beside the two below."""
    command_request: float = 1.0
    """More for each request that was answered."""
    command_rate: float = 64 * 1024.0
    """More for the bytes that were moved."""
    repeats: int = 40
    """Attempts after the first, of all requests together, beside the share below."""
    repeats_share: float = 0.1
    """More for each request that was answered."""

    def request_time(self, length: int = 0) -> float:
        """The longest that an answer of `length` bytes may take."""
        return self.silence + length / self.request_rate


LIMITS: Final = Limits()


class TooSlow(Exception):
    """An answer took longer than its bytes allow. No TimeoutError, which fsspec replaces with its own."""


class Budget:
    """What one process may still spend on one server: waiting time and repeated requests. Threads share it."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self._clock = limits, clock
        self._lock = threading.Lock()
        self._active, self._since, self._waited = 0, 0.0, 0.0
        self._credit = limits.command
        self.answered, self.repeated, self.moved = 0, 0, 0
        self.process = os.getpid()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block; what overlaps counts once."""
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
        """Requests were answered."""
        with self._lock:
            self.answered += requests
            self._credit += requests * self.limits.command_request

    def move(self, size: int) -> None:
        """Bytes have arrived, or are about to be sent."""
        with self._lock:
            self.moved += size
            self._credit += size / self.limits.command_rate

    def repeat(self) -> bool:
        """Whether a request may be made once more; counts it."""
        with self._lock:
            allowed = self.repeated < self.limits.repeats + self.limits.repeats_share * self.answered
            self.repeated += allowed
            return allowed

    def waited(self) -> float:
        with self._lock:
            return self._waited + (self._clock() - self._since if self._active else 0.0)

    def left(self) -> float:
        """Seconds that may still be waited."""
        return self._credit - self.waited()

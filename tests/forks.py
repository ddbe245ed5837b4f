"""Scripts in forked processes: one interpreter imports everything, for all tests of a session."""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

SCRIPT = Path(__file__).with_name("fork_server.py")


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it printed."""

    code: int
    """Negative: the signal that ended it."""
    stdout: str
    stderr: str


class Forks:
    """A connection to the server; the first that needs it starts it."""

    def __init__(self, folder: Path, shared: Path, session: int) -> None:
        """Args:
        folder: of this worker.
        shared: a folder of all workers.
        session: process id that the server outlives by a second at most.
        """
        self._folder = folder
        self._shared = shared
        self._session = session
        self._lines: TextIO | None = None

    def run(
        self,
        script: Path,
        *arguments: object,
        processes: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> Sequence[Ended]:
        """Run a script as `processes` that torchrun could have started; how each ended."""
        lines = self._connected()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        order = {
            "script": str(script),
            "arguments": list(map(str, arguments)),
            "processes": processes,
            "environment": dict(environment or {}),
            "outputs": str(self._folder),
            "port": port,
        }
        lines.write(json.dumps(order) + "\n")
        lines.flush()
        codes = json.loads(lines.readline())
        return [Ended(code, *self._printed(rank)) for rank, code in enumerate(codes)]

    def address(self) -> Path:
        """Where the server listens, for processes that let it do their work (stand_in.py)."""
        self._connected()
        return self._shared / "forks"

    def _connected(self) -> TextIO:
        if self._lines is None:
            self._lines = self._connect()
        return self._lines

    def _connect(self) -> TextIO:
        address = self._shared / "forks"
        with (self._shared / "forks.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not address.exists():
                self._start(address)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(address))
            return connection.makefile("rw")  # keeps the connection open until it is closed itself

    def _start(self, address: Path) -> None:
        hidden = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(address))
            listening.listen()
            os.set_inheritable(listening.fileno(), True)
            words = [sys.executable, str(SCRIPT), str(listening.fileno()), str(self._session)]
            nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1)]
            os.posix_spawn(sys.executable, words, hidden, file_actions=nothing)

    def _printed(self, rank: int) -> tuple[str, str]:
        return (self._folder / f"stdout-{rank}").read_text(), (self._folder / f"stderr-{rank}").read_text()

    def close(self) -> None:
        """Hang up."""
        if self._lines is not None:
            self._lines.close()

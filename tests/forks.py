"""Scripts in forked processes: one interpreter imports everything, for all tests of a session."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("fork_server.py")


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it printed."""

    code: int
    """Negative: the signal that ended it."""
    stdout: str
    stderr: str


class Forks:
    """The server, started when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: subprocess.Popen[str] | None = None

    def run(
        self,
        script: Path,
        *arguments: object,
        processes: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> Sequence[Ended]:
        """Run a script as `processes` that torchrun could have started; how each ended."""
        if self._server is None:
            hidden = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            self._server = subprocess.Popen(
                [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=hidden
            )
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
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        codes = json.loads(self._server.stdout.readline())
        return [Ended(code, *self._printed(rank)) for rank, code in enumerate(codes)]

    def _printed(self, rank: int) -> tuple[str, str]:
        return (self._folder / f"stdout-{rank}").read_text(), (self._folder / f"stderr-{rank}").read_text()

    def close(self) -> None:
        """End the server, if there is one."""
        if self._server is not None:
            self._server.communicate()

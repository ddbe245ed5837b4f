"""python forked_ranks.py: run medalign commands in forked processes, as torchrun would start them.

Reads a JSON list of runs: `arguments` of the command line, `processes`, and `kill_after` batches (null: no kill). A
fresh interpreter for each process would spend most of its life importing. Writes a list of [exit code, output] of each
run's processes.
"""

import json
import os
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack
from typing import Any

import torch

torch.set_num_threads(1)

from medalign.cli import app  # noqa: E402
from medalign.pipeline import answer_log  # noqa: E402
from medalign.pipeline.comparison import run as _comparison  # noqa: E402, F401
from medalign.pipeline.grounding import run as _grounding  # noqa: E402, F401


def kill_after(batches: int) -> None:
    """End this process without a chance to tidy up once it has written so many batches."""
    append = answer_log.AnswerLog.append
    written = 0

    def counted(*arguments: Any) -> None:
        nonlocal written
        append(*arguments)
        written += 1
        if written == batches:
            os.kill(os.getpid(), signal.SIGKILL)

    answer_log.AnswerLog.append = counted  # type: ignore[method-assign]


def start(run: dict[str, Any], rank: int, port: int, output: int) -> int:
    child = os.fork()
    if child:
        return child
    os.dup2(output, 1)
    os.dup2(output, 2)
    if run["processes"] > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": run["processes"], "MASTER_PORT": port}
        os.environ |= {name: str(number) for name, number in numbers.items()}
        os.environ |= {"LOCAL_WORLD_SIZE": str(run["processes"]), "MASTER_ADDR": "127.0.0.1"}
    if run["kill_after"] is not None:
        kill_after(run["kill_after"])
    code = 1
    try:
        app(run["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(run: dict[str, Any]) -> list[tuple[int, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ExitStack() as files:
        outputs = [files.enter_context(tempfile.TemporaryFile()) for _ in range(run["processes"])]
        children = [start(run, rank, port, output.fileno()) for rank, output in enumerate(outputs)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        for output in outputs:
            output.seek(0)
        return [(code, output.read().decode()) for code, output in zip(codes, outputs, strict=True)]


if __name__ == "__main__":
    print(json.dumps([ended(run) for run in json.load(sys.stdin)]))

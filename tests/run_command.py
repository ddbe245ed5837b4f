"""run_command.py KILL_AFTER WORD ...: a medalign command; with KILL_AFTER > 0 it is killed after so many batches."""

import os
import signal
import sys
from typing import Any

from medalign.cli import app
from medalign.pipeline.runs import answer_log


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


if int(sys.argv[1]):
    kill_after(int(sys.argv[1]))
app(sys.argv[2:])

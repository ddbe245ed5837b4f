"""Starting processes of this package, and saying how one ended."""

import signal
import sys
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess


def start_context(module: str) -> ForkServerContext | SpawnContext:
    """The way to start processes that run `module`: forked from a server that has imported it and done nothing else."""
    context = get_context("forkserver") if sys.platform == "linux" else get_context("spawn")
    context.set_forkserver_preload([module])
    return context


def how_it_ended(process: BaseProcess) -> tuple[str, int]:
    """Wait for a process that is ending; return its end in words, and the signal that killed it or 0."""
    process.join()
    code = process.exitcode or 0
    if code < 0:
        return f"{process.name} was killed by {signal.Signals(-code).name}", -code
    return f"{process.name} ended with exit code {code}", 0

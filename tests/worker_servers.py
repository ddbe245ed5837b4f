"""multiprocessing's server of worker processes, as a child of the tests' own fork server.

A fresh interpreter imports torch and medalign before it forks the first worker. This file as a script is that child;
stand_in.py is the process that multiprocessing believes to be its server.
"""

import ast
import json
import sys
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, util
from pathlib import Path

import stand_in

Start = Callable[[bytes | str, Sequence[bytes | str], Sequence[int]], int]


def install(address: Callable[[], Path]) -> None:
    """Start servers that import medalign this way; `address` gives that of the fork server, and may start it."""
    start: Start = util.spawnv_passfds

    def started(program: bytes | str, words: Sequence[bytes | str], descriptors: Sequence[int]) -> int:
        server = str(words[-1])
        if not server.startswith("from multiprocessing.forkserver import main;") or "['medalign." not in server:
            return start(program, words, descriptors)
        _, call = ast.parse(server).body
        assert isinstance(call, ast.Expr)
        assert isinstance(call.value, ast.Call)
        preload, named = (ast.literal_eval(part) for part in (call.value.args[2], call.value.keywords[0].value))
        given = stand_in.command(address(), __file__, [json.dumps([preload, named])], descriptors)
        return start(program, [program, *given], descriptors)

    setattr(util, "spawnv_passfds", started)  # noqa: B010


if __name__ == "__main__":
    preload, named = json.loads(sys.argv[1])
    listening, alive = map(int, sys.argv[2:])
    forkserver.main(listening, alive, preload, **named)

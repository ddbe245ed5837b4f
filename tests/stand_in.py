"""Runs a script in the tests' fork server on behalf of a program that expects to have started it itself.

`stand_in.py ADDRESS ORDER DESCRIPTOR ...`: the order as tests/forks.py writes them. Its script gets duplicates of the
descriptors, whose numbers are added to its arguments, and this process's environment. What it prints is lost.
"""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def command(address: Path, script: str, arguments: Sequence[str], descriptors: Sequence[int]) -> list[str]:
    """The words after the interpreter that start this program."""
    order = json.dumps({"script": script, "arguments": list(arguments)})
    return ["-I", "-S", __file__, str(address), order, *map(str, descriptors)]


def run(address: str, order: dict[str, object], descriptors: list[int]) -> int:
    """Wait for the script; its exit code."""
    with tempfile.TemporaryDirectory() as outputs, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        order = order | {"processes": 1, "port": 0, "outputs": outputs}
        order |= {"environment": dict(os.environ), "descriptors": len(descriptors)}
        with connection.makefile("rw") as lines:
            lines.write(json.dumps(order) + "\n")
            lines.flush()
            if descriptors:
                assert lines.readline() == "descriptors\n"
                socket.send_fds(connection, [b"d"], descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
            (code,) = json.loads(lines.readline())
    return int(code) % 256


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], json.loads(sys.argv[2]), list(map(int, sys.argv[3:]))))

"""What Ray's nodes start in place of `setup_worker.py`: the worker itself is a child of the fork server.

`ray_setup.py WORKER WORD ...`, with the server's address in MEDALIGN_FORKS. A worker in a fresh interpreter imports
torch and medalign, and Ray twice, which takes far longer than what the tests have it do. The server itself must not
import Ray, which reads the environment of the worker when it is imported.
"""

import json
import os
import socket
import sys
import tempfile

OF_SETUP = ("--serialized-runtime-env-context", "--language")
"""Options that are not the worker's."""


def work(words: list[str]) -> int:
    """Run a script in the server, with this environment; its exit code. What it prints is lost."""
    with tempfile.TemporaryDirectory() as outputs, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["MEDALIGN_FORKS"])
        order = {
            "script": words[0],
            "arguments": words[1:],
            "processes": 1,
            "environment": dict(os.environ),
            "outputs": outputs,
            "port": 0,
        }
        with connection.makefile("rw") as lines:
            lines.write(json.dumps(order) + "\n")
            lines.flush()
            (code,) = json.loads(lines.readline())
    return int(code)


if __name__ == "__main__":
    sys.exit(work([word for word in sys.argv[1:] if not word.startswith(OF_SETUP)]) % 256)

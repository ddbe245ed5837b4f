"""What Ray's nodes start in place of `setup_worker.py`: the worker itself is a child of the tests' fork server.

`ray_setup.py WORKER WORD ...`, with the server's address in MEDALIGN_FORKS. A worker in a fresh interpreter imports
torch and medalign, and Ray twice, which takes far longer than what the tests have it do. The server itself must not
import Ray, which reads the environment of the worker when it is imported.
"""

import os
import sys

import stand_in

OF_SETUP = ("--serialized-runtime-env-context", "--language")
"""Options that are not the worker's."""

if __name__ == "__main__":
    worker, *words = [word for word in sys.argv[1:] if not word.startswith(OF_SETUP)]
    sys.exit(stand_in.run(os.environ["MEDALIGN_FORKS"], {"script": worker, "arguments": words}, []))

"""A process that has imported everything and forks a child for each script that a test wants to run.

A fresh interpreter would spend most of its life importing. Nothing here computes before it forks, so that the children
are as good as fresh ones. All workers of a session share the server: `fork_server.py FD PID` is given a listening
socket and ends after the process PID. It reads one JSON object a line (tests/forks.py writes them) and answers with the
exit codes of its children, negative where a signal ended one.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

gc.disable()  # while all is imported: what is loaded stays

import no_syncs  # noqa: E402
import quick_libraries  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
no_syncs.install()
quick_libraries.install()

MODULES = (
    "accelerate",
    "medalign.cli",
    "medalign.pipeline.align.align_student",
    "medalign.pipeline.evaluation.comparison.render",
    "medalign.pipeline.evaluation.comparison.compare",
    "medalign.pipeline.doctor.doctor",
    "medalign.pipeline.extraction.extract",
    "medalign.pipeline.evaluation.grounding.ground",
    "medalign.pipeline.model_folders",
    "medalign.pipeline.training.train",
    "peft",
    "torch.distributed.checkpoint.state_dict",
    "transformers.models.clip.modeling_clip",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llava.modeling_llava",
    "transformers.models.llava.processing_llava",
)
"""What the scripts load, so that no child has to."""


def run(order: dict[str, Any], rank: int) -> None:
    """Become the script, in a child."""
    folder = Path(order["outputs"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / f"{name}-{rank}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), number)
    os.environ.update(order["environment"])
    if order["processes"] > 1:  # as torchrun sets them
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": order["processes"], "MASTER_PORT": order["port"]}
        os.environ.update({name: str(number) for name, number in places.items()})
        os.environ.update({"LOCAL_WORLD_SIZE": str(order["processes"]), "MASTER_ADDR": "127.0.0.1"})
    sys.argv = [order["script"], *order["arguments"]]
    sys.path.insert(0, str(Path(order["script"]).parent))
    runpy.run_path(order["script"], run_name="__main__")


def start(order: dict[str, Any], rank: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run(order, rank)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(connection: socket.socket) -> None:
    """Answer one test process, in a child, until it hangs up."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile("rw") as lines:
        for line in lines:
            order = json.loads(line)
            descriptors = received(connection, lines, order.get("descriptors", 0))
            order["arguments"] += map(str, descriptors)
            children = [start(order, rank) for rank in range(order["processes"])]
            for descriptor in descriptors:
                os.close(descriptor)
            codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            lines.write(json.dumps(codes) + "\n")
            lines.flush()


def received(connection: socket.socket, lines: TextIO, count: int) -> list[int]:
    """Descriptors that a process sends behind its order, for the child."""
    if not count:
        return []
    lines.write("descriptors\n")
    lines.flush()
    return list(socket.recv_fds(connection, 1, count)[1])


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def main(listening: int, session: int) -> None:
    for module in MODULES:
        importlib.import_module(module)
    gc.enable()
    gc.collect()
    gc.freeze()  # children collect only their own garbage, and share these pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    with socket.socket(fileno=listening) as server:
        server.settimeout(1.0)
        while is_alive(session):
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                connection.settimeout(None)
                serve(connection)
                os._exit(0)
            connection.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

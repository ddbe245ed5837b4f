"""Run by `make test-wheel`, in an environment that has the wheel and what it depends on, without any extra.

Opens a tiny student of each family in the format that it is published in, and runs the command line from an empty
folder: help, the shipped configurations, and every command of docs/how-to/first-hour.md, the whole demo included;
then torchrun trains the page's configuration in two processes.
pytest and what comes with it are not there.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import medalign
from medalign.student.loading.student_loading import open_student
from originals import write_original
from pages import PAGES, blocks, is_shown

FAMILIES = ("llava-med", "huatuo", "llava")
OF_EXTRAS = ("pytest", "ray", "gguf", "pylibjpeg", "s3fs", "hypothesis")
SHIPPED = ("py.typed", "configs/vqa-rad-smollm2.yaml", "configs/comparisons/phantoms.yaml", "examples/own_decoding.py")


def environment() -> dict[str, str]:
    """This process's, with the installed command first, and without the folder that this script imports from."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path}


def run_command(*words: str) -> str:
    """What a command prints, run in an empty folder. Anything but exit code 0 is an error."""
    command = Path(sys.executable).with_name("medalign")
    with TemporaryDirectory() as folder:
        result = subprocess.run(
            [str(command), *words], cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True, check=True
        )
    print(f"medalign {' '.join(words)}: {len(result.stdout.splitlines())} lines")
    return result.stdout


def open_families() -> None:
    for family in FAMILIES:
        with TemporaryDirectory() as folder:
            original = write_original(Path(folder) / family, family)
            student = open_student(original.folder, layers=[1], rotation="full", dtype=None)
            ids = student.tokenizer("What is the lung effusion?").input_ids
            assert student.tokenizer.decode(ids, skip_special_tokens=True) == "What is the lung effusion?"
            print(f"opened {family}: {type(student.tokenizer).__name__}, {len(ids)} tokens")


def first_hour() -> None:
    """Type what the page says into a real shell, and compare what is printed with what the page shows."""
    (page,) = (path for path in PAGES if path.name == "first-hour.md")
    printed = ""
    with TemporaryDirectory() as folder:
        for block in blocks(page.read_text()):
            if block.language == "text":
                assert is_shown(block.text, printed), (
                    f"{page.name}, line {block.line}: not what was printed:\n{printed}"
                )
            elif block.needs is None:
                assert block.language == "bash"
                result = subprocess.run(
                    ["bash", "-e", "-c", block.text],
                    cwd=folder,
                    env=environment(),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                printed = result.stdout
                assert result.returncode == block.exits, f"{page.name}, line {block.line}: {printed}"
                print(f"{page.name}, line {block.line}: {len(printed.splitlines())} lines")
        train_in_two(folder)


def train_in_two(folder: str) -> None:
    """torchrun itself; `make test` starts the processes in its environment (tests/forks.py)."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "medalign"]
    steps = ["--set", "training.max_steps=4", "--set", "training.device=cpu", "--out", "runs/two"]
    command = [sys.executable, *start, "student", "train", "mine.yaml", *steps]
    subprocess.run(command, cwd=folder, env=environment() | {"OMP_NUM_THREADS": "1"}, check=True)
    run = Path(folder) / "runs" / "two"
    assert (run / "medalign.json").is_file(), "torchrun ended without an adapter"
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    print(f"torchrun: {steps[-1]} steps by two processes")
    assert steps[-1] == 4


def main() -> None:
    package = Path(medalign.__file__).parent
    assert Path(sys.prefix) in package.parents, f"{package} is not the installed package"
    there = [name for name in OF_EXTRAS if find_spec(name) is not None]
    assert not there, f"an environment without extras, but it has {there}"
    missing = [name for name in SHIPPED if not (package / name).is_file()]
    assert not missing, f"the wheel did not install {missing}"
    open_families()
    assert "teacher" in run_command("--help")
    assert medalign.__version__ in run_command("doctor")
    assert "vqa-rad-smollm2" in run_command("config", "list")
    assert "vqa-rad-smollm2.yaml" in run_command("config", "copy", "vqa-rad-smollm2")
    first_hour()


if __name__ == "__main__":
    main()

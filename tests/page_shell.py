"""Runs the blocks of a page in a folder: commands by one real bash, in which `medalign` and `python` are stand-ins.

Starting an interpreter that imports torch takes seconds, so the stand-ins pass their arguments, folder and environment
through named pipes to this process, which runs the command and gives back what it printed and its exit code. `sbatch`,
`srun`, `torchrun` and `scontrol` are small scripts that do what a cluster of one node would do (STANDINS).
"""

import doctest
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from medalign.cli import app
from medalign.pipeline.terminal import Bars
from medalign.student.decoding import method_registry
from pages import Block, is_shown
from typer.testing import CliRunner, Result

KILLED = 137
"""The exit code of what `kill -9` ended."""

CALL = """#!/usr/bin/env bash
env -0 > "$HOW_TO/environment"
printf '%s\\0' "$PWD" NAME "$@" > "$HOW_TO/request"
read -r code < "$HOW_TO/answer"
if [[ /dev/stdout -ef /dev/stderr ]]; then
    cat "$HOW_TO/both"
else
    cat "$HOW_TO/stdout"
    cat "$HOW_TO/stderr" >&2
fi
exit "$code"
"""
STANDINS = {
    "medalign": CALL.replace("NAME", "medalign"),
    "python": CALL.replace("NAME", "python"),
    "pip": CALL.replace("NAME", "pip"),
    # Runs the script at once, once for each number of its array, as the scheduler would.
    "sbatch": """#!/usr/bin/env bash
parsable= wrap= array=
while [[ ${1-} == --* ]]; do
    case $1 in
        --parsable) parsable=yes ;;
        --wrap) wrap=$2; shift ;;
        --array=*) array=${1#*=} ;;
        --dependency=afterok:1234) ;;
        --*=*) ;;
        *) echo "sbatch: unknown option $1" >&2; exit 1 ;;
    esac
    shift
done
script=$HOW_TO/wrapped
if [[ $wrap ]]; then printf '#!/bin/sh\\n%s\\n' "$wrap" > "$script"; else script=$1; shift; fi
[[ $(head -c 2 "$script") == '#!' ]] || { echo "sbatch: This does not look like a batch script" >&2; exit 1; }
[[ $array ]] || array=$(sed -n 's/^#SBATCH --array=//p' "$script")
export SLURM_JOB_ID=1234 SLURM_JOB_NODELIST=node1 SLURM_NNODES=1 SLURM_GPUS_ON_NODE=1 SLURM_CPUS_PER_TASK=2
export SLURM_RESTART_COUNT=0 SLURM_SUBMIT_DIR=$PWD
[[ $parsable ]] && echo 1234 || echo "Submitted batch job 1234"
for task in $(if [[ $array ]]; then seq "${array%-*}" "${array#*-}"; else echo none; fi); do
    [[ $task == none ]] || export SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$((${array#*-} + 1))
    interpreter=$(head -n 1 "$script"); interpreter=${interpreter#\\#!}
    $interpreter "$script" "$@" > "slurm-1234${SLURM_ARRAY_TASK_ID+_$task}.out" 2>&1 ||
        { cat slurm-1234*.out >&2; exit 1; }
done
""",
    "srun": """#!/usr/bin/env bash
while [[ ${1-} == -* ]]; do shift; done
exec "$@"
""",
    "torchrun": """#!/usr/bin/env bash
while [[ $1 != -m ]]; do [[ $1 == -* ]] || [[ $previous == -* ]] || exit 2; previous=$1; shift; done
shift
exec "$@"
""",
    "scontrol": """#!/usr/bin/env bash
case $1 in
    show) echo node1 ;;
    *) echo "$@" ;;
esac
""",
}


BUILT_IN = dict(method_registry._METHODS)
"""The decoding methods of a new process."""


class Killed(BaseException):
    """Ends a command as abruptly as this process can."""


@dataclass(frozen=True)
class Ended:
    """What bash printed, and its exit code."""

    code: int
    printed: str


@dataclass(frozen=True)
class PastRun:
    """A long command that ran once for all pages: what it printed, and the folder that it left."""

    words: tuple[str, ...]
    result: Result
    left: Path

    def leave(self, folder: Path) -> None:
        """Put what the command left where it would have left it."""
        shutil.copytree(self.left, folder / self.left.name, copy_function=os.link)


class Shell:
    """Runs the blocks of one page, in order, in `folder`."""

    def __init__(self, folder: Path, service: Path) -> None:
        self._folder = folder
        self._service = service
        self.past_run: PastRun | None = None
        """Its command is not run again."""
        self._printed = ""
        self._names: dict[str, object] = {}
        for pipe in ("request", "answer"):
            os.mkfifo(service / pipe)
        for name, text in STANDINS.items():
            (service / name).write_text(text)
            (service / name).chmod(0o700)

    def run(self, blocks: Iterable[Block]) -> int:
        """Run the blocks; how many commands and sessions ran.

        Raises:
            AssertionError: a command ended with another code, or printed something else than the page shows.
        """
        count = 0
        for block in blocks:
            place = f"the block of line {block.line}"
            if block.title:
                (self._folder / block.title).write_text(block.text)
            elif block.needs:
                continue
            elif block.language == "text":
                assert is_shown(block.text, self._printed), f"{place} is not what was printed:\n{self._printed}"
            elif block.language == "pycon":
                self._session(block, place)
                count += 1
            else:
                ended = self._bash(block)
                self._printed = ended.printed
                assert ended.code == block.exits, f"{place} exits with {ended.code}:\n{ended.printed}"
                count += 1
        return count

    def _session(self, block: Block, place: str) -> None:
        """Run a Python session with the names of the sessions before it."""
        test = doctest.DocTestParser().get_doctest(block.text, {}, place, place, block.line)
        test.globs = self._names  # a copy would hide names from the functions of earlier sessions
        told: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        result = runner.run(test, out=told.append, clear_globs=False)
        assert result.attempted, f"{place} has no example"
        assert not result.failed, "".join(told)

    def _bash(self, block: Block) -> Ended:
        """Run a block with `set -e`, and the commands of the stand-ins in this process."""
        (self._service / "block").write_text(block.text)
        # The end is a request, too, so that one loop waits for either.
        script = 'bash -euo pipefail "$HOW_TO/block"; printf "end\\0%s\\0" $? > "$HOW_TO/request"'
        environment = os.environ | {"PATH": f"{self._service}:{os.environ['PATH']}", "HOW_TO": str(self._service)}
        with (
            (self._service / "printed").open("wb") as printed,
            subprocess.Popen(
                ["bash", "-c", script],
                cwd=self._folder,
                env=environment,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as bash,
        ):
            try:
                while True:
                    place, *words = _strings(self._service / "request")
                    if place == "end":
                        break
                    code = self._serve(Path(place), words, block.killed)
                    (self._service / "answer").write_text(f"{code}\n")
            except BaseException:
                os.killpg(bash.pid, signal.SIGKILL)
                raise
        return Ended(int(words[0]), (self._service / "printed").read_text())

    def _serve(self, folder: Path, words: Sequence[str], killed: int | None) -> int:
        """Run what a stand-in asked for, with its folder and environment."""
        program = {"medalign": self._medalign, "python": self._python, "pip": self._pip}[words[0]]
        method_registry.installed_entry_points.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(method_registry, "_METHODS", dict(BUILT_IN))
            for name, value in (variable.split("=", 1) for variable in _strings(self._service / "environment")):
                if name not in os.environ:
                    patch.setenv(name, value)
            if killed is not None:
                _kill_after(killed, patch)
            return program(words[1:])

    def _medalign(self, words: Sequence[str]) -> int:
        try:
            if self.past_run is not None and self.past_run.words == tuple(words):
                result = self.past_run.result
                self.past_run.leave(Path.cwd())
            else:
                result = CliRunner().invoke(app, list(words))
        except Killed:
            return self._give("", "Killed\n", "Killed\n", KILLED)
        failure = f"{result.exception!r}\n" if result.exit_code == 1 else ""
        return self._give(result.stdout, result.stderr + failure, result.output + failure, result.exit_code)

    def _python(self, words: Sequence[str]) -> int:
        """Run a script, or what follows -c."""
        with pytest.MonkeyPatch.context() as patch, CliRunner().isolation() as (stdout, stderr, both):
            patch.setattr(sys, "argv", list(words))
            if words[0] == "-c":
                code = _exit_code(lambda: exec(words[1], {"__name__": "__main__"}))
            else:
                code = _exit_code(lambda: runpy.run_path(words[0], run_name="__main__"))
            sys.stdout.flush()
            printed = [stream.getvalue().decode() for stream in (stdout, stderr, both)]
        return self._give(*printed, code)

    def _pip(self, words: Sequence[str]) -> int:
        """What `pip install -e .` does about entry points: a folder of metadata on the path."""
        assert list(words) == ["install", "-e", "."]
        project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
        groups = project["entry-points"].items()
        lines = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in each.items()) for group, each in groups
        ]
        metadata = Path.cwd() / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
        (metadata / "entry_points.txt").write_text("".join(lines))
        return self._give("", "", "", 0)

    def _give(self, stdout: str, stderr: str, both: str, code: int) -> int:
        for name, text in (("stdout", stdout), ("stderr", stderr), ("both", both)):
            (self._service / name).write_text(text)
        return code


def _strings(file: Path) -> list[str]:
    return file.read_bytes().decode().removesuffix("\0").split("\0")


def _exit_code(script: Callable[[], object]) -> int:
    try:
        script()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _kill_after(count: int, patch: pytest.MonkeyPatch) -> None:
    """End the command when its bars have advanced so often."""
    advance, done = Bars.advance, 0

    def counted(bars: Bars, steps: int = 1) -> None:
        nonlocal done
        advance(bars, steps)
        done += 1
        if done == count:
            raise Killed

    patch.setattr(Bars, "advance", counted)

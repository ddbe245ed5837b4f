"""Change the code in small wrong ways, one at a time, and count how many of these mutants the tests notice.

usage: python scripts/mutants.py [ROOM ...] [--per-room N | --all] [--match TEXT] [--again FILE] [--json FILE]

This process imports torch and the other libraries, but no module of medalign, and forks a process for each room, which
imports the room and collects its tests. Of that process, a fork runs all tests once and records which test runs which
line; then a fork for each mutant puts the changed code into the imported function and runs the tests that run the
changed line, cheapest first, until one fails. Code that runs only at import (constants, defaults of arguments) is
changed before the import, in a fork of this process.

A mutant that exceeds its time limit counts as noticed. tests/equivalent_mutants.txt lists mutants that no test can
notice, each with the reason; they count neither way. The exit code is 1 if the score of a room is below 95 %.
"""

import argparse
import ast
import importlib
import json
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.dont_write_bytecode = True

from mutation_operators import Mutant, mutants  # noqa: E402
from mutation_session import (  # noqa: E402
    ROOT,
    SCREEN,
    TIMED_OUT,
    Baseline,
    Session,
    collect,
    forked,
    functions,
    import_changed,
    measure,
    outcome,
    swap,
)

LEAST = 0.95
SURVIVED = ("survived", "survived: no test runs it")
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.txt"
HOURS = 6 * 3600.0
START = 60.0
"""Seconds until the first test of a mutant begins, for imports and collecting."""
LIBRARIES = (
    "accelerate",
    "beartype.claw",
    "hypothesis",
    "jaxtyping",
    "peft",
    "polars",
    "pyarrow.parquet",
    "torch",
    "transformers.models.clip.modeling_clip",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llava.modeling_llava",
    "transformers.models.llava.processing_llava",
    "zarr",
)
ROOMS = {
    "store": (
        ["teacher_cache/store", "atomic.py"],
        [
            "tests/teacher_cache/store",
            "tests/teacher_cache/sharing",
            "tests/teacher_cache/extraction/test_extend.py",
            "tests/teacher_cache/extraction/test_repair.py",
            "tests/test_atomic.py",
            "tests/test_atomic_edges.py",
            "tests/test_power_cuts.py",
        ],
    ),
    "alignment": (
        ["student/alignment", "student/inputs/spans.py", "teacher_cache/geometry/cosines.py"],
        [
            "tests/student/alignment",
            "tests/student/inputs",
            "tests/student/inspection",
            "tests/student/decoding/test_contrastive.py",
            "tests/student/decoding/test_limits.py",
            "tests/student/decoding/test_vhr.py",
            "tests/student/training/test_text_only.py",
            "tests/student/training/test_training_run.py",
            "tests/pipeline/training/test_query_experts.py",
            "tests/pipeline/training/test_teacher_tokens.py",
        ],
    ),
    "decoding": (["student/decoding/core"], ["tests/student/decoding"]),
    "statistics": (
        ["pipeline/evaluation/statistics.py", "pipeline/evaluation/comparison/analysis.py", "student/metrics/*.py"],
        [
            "tests/pipeline/evaluation/test_resampling.py",
            "tests/pipeline/evaluation/test_statistics.py",
            "tests/pipeline/evaluation/comparison",
            "tests/pipeline/studies/test_paired_seeds.py",
            "tests/student/metrics",
        ],
    ),
}
"""The modules and the tests of each room."""
LEFT_OUT = {"cards", "filesystem_errors.py", "server_limits.py", "store_problem.py"}
"""Modules of prose, messages and time limits, in which a wrong line is no wrong result."""


@dataclass
class Room:
    """The mutants of a room that are tried, and what became of each."""

    name: str
    paths: list[str]
    tests: list[str]
    trees: dict[str, ast.Module]
    chosen: list[Mutant]
    equivalent: list[str]
    outcomes: dict[int, str]

    @property
    def counts(self) -> Counter[str]:
        kinds = ("survived", TIMED_OUT)
        return Counter(kind if (kind := value.split(":")[0]) in kinds else "killed" for value in self.outcomes.values())

    @property
    def score(self) -> float:
        return 1 - self.counts["survived"] / max(len(self.outcomes), 1)

    def record(self, number: int, result: Any) -> None:
        """Keep and report the outcome of a mutant: the tests that failed, `TIMED_OUT`, or None after a crash."""
        if isinstance(result, list):
            result = f"killed: {result[0]}" if result else SURVIVED[0]
        self.outcomes[number] = result or "killed: the process ended"
        left = f"{self.name} {len(self.outcomes)}/{len(self.chosen)}"
        os.write(SCREEN, f"[{left}] {self.outcomes[number]} <- {self.chosen[number].name}\n".encode())


def plan(name: str, arguments: argparse.Namespace, equivalents: set[str]) -> Room:
    """Choose the mutants of a room."""
    patterns, tests = ROOMS[name]
    found = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    files = [file for path in found for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    files = [file for file in files if not {file.name, file.parent.name} & LEFT_OUT]
    trees = {str(file.relative_to(ROOT)): ast.parse(file.read_bytes()) for file in files}
    everything = [mutant for path, tree in trees.items() for mutant in mutants(path, tree)]
    if arguments.match:
        everything = [mutant for mutant in everything if any(text in mutant.name for text in arguments.match)]
    elif not arguments.all and len(everything) > arguments.per_room:
        order = random.Random(f"{arguments.seed} {name}").sample(range(len(everything)), arguments.per_room)
        everything = [everything[number] for number in sorted(order)]
    if arguments.again:
        survived = [key for key, text in json.loads(arguments.again.read_text())[name].items() if text in SURVIVED]
        everything = [mutant for mutant in everything if mutant.name in survived]
    chosen = [mutant for mutant in everything if mutant.name not in equivalents]
    equivalent = [mutant.name for mutant in everything if mutant.name in equivalents]
    return Room(name, list(trees), tests, trees, chosen, equivalent, {})


def try_imported(room: Room, budget: float) -> dict[str, Any]:
    """Try the mutants inside functions; runs in a fork. Returns outcomes, and the tests for all other mutants."""
    results: dict[str, Any] = {"outcomes": {}, "rest": {}}

    def work(session: Session) -> None:
        known = functions(room.paths)
        start = time.perf_counter()
        baseline = Baseline(**forked(lambda: measure(session, room.paths), HOURS))
        seconds = time.perf_counter() - start
        text = f"{room.name}: {len(baseline.cost)} tests passed in {seconds:.0f} s; {len(room.chosen)} mutants\n"
        os.write(SCREEN, text.encode())
        for number, mutant in enumerate(room.chosen):
            tests = baseline.tests_of(mutant, budget)

            def attempt(mutant: Mutant = mutant, tests: dict[str, float] = tests) -> list[str] | None:
                return outcome(session, tests) if swap(mutant, room.trees[mutant.path], known) else None

            if not tests:
                room.record(number, SURVIVED[1])
            elif not mutant.function or (result := forked(attempt, START)) is None:
                results["rest"][number] = tests
            else:
                room.record(number, result)

    collect(room.tests, work)
    return {**results, "outcomes": room.outcomes}


def try_at_import(mutant: Mutant, tree: ast.Module, tests: dict[str, float]) -> list[str]:
    """Change the module before it is imported, then run the tests; runs in a fork. Returns the tests that failed."""
    failed = ["the import"]

    def work(session: Session) -> None:
        failed[:] = sorted(session.failed) or outcome(session, tests)

    import_changed(mutant, tree)
    collect(sorted({test.split("::")[0] for test in tests}), work)
    return failed


def run(room: Room, budget: float) -> None:
    """Try all mutants of a room."""
    results = forked(lambda: try_imported(room, budget), HOURS)
    room.outcomes.update({int(number): text for number, text in results["outcomes"].items()})
    for number, tests in results["rest"].items():
        mutant = room.chosen[int(number)]
        attempt = partial(try_at_import, mutant, room.trees[mutant.path], tests)
        room.record(int(number), forked(attempt, START))
    if len(room.outcomes) < len(room.chosen):
        raise RuntimeError(f"{room.name}: {len(room.outcomes)} of {len(room.chosen)} mutants were tried")


def report(rooms: list[Room], file: Path | None) -> None:
    """Print a table of the rooms and the mutants that survived, and write all outcomes as JSON."""
    print(f"{'room':<12}{'mutants':>9}{'killed':>9}{TIMED_OUT:>11}{'survived':>10}{'equivalent':>12}{'score':>9}")
    for room in rooms:
        counts, equivalent = room.counts, len(room.equivalent)
        total = len(room.outcomes) + equivalent
        numbers = f"{total:>9}{counts['killed']:>9}{counts[TIMED_OUT]:>11}{counts['survived']:>10}{equivalent:>12}"
        print(f"{room.name:<12}{numbers}{room.score:>9.1%}")
    for room in rooms:
        for number, text in sorted(room.outcomes.items()):
            if text.startswith("survived"):
                mutant = room.chosen[number]
                print(f"\n{mutant.path}:{mutant.lines.start} {mutant.function} ({text})")
                print(f"- {mutant.before}\n+ {mutant.after}")
    if file is not None:
        outcomes = {
            room.name: {room.chosen[n].name: text for n, text in sorted(room.outcomes.items())} for room in rooms
        }
        file.write_text(json.dumps(outcomes, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the mutants of medalign's code that its tests notice.")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"default: all of {', '.join(ROOMS)}")
    parser.add_argument("--per-room", type=int, default=120, help="random mutants of each room (default: 120)")
    parser.add_argument("--all", action="store_true", help="try every mutant")
    parser.add_argument("--match", action="append", help="try all mutants whose name contains this text; repeatable")
    parser.add_argument("--again", type=Path, help="of these mutants, only those that survived by this JSON file")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of mutants (default: 0)")
    parser.add_argument("--budget", type=float, default=20, help="seconds of tests for each mutant (default: 20)")
    parser.add_argument("--json", type=Path, help="write all outcomes to this file")
    arguments = parser.parse_args()
    if unknown := set(arguments.rooms) - set(ROOMS):
        parser.error(f"no room {', '.join(sorted(unknown))}; the rooms are {', '.join(ROOMS)}")
    lines = EQUIVALENT.read_text().splitlines()
    equivalents = {line.split("  # ")[0] for line in lines if line and not line.startswith("#")}
    for library in LIBRARIES:
        importlib.import_module(library)
    rooms = [plan(name, arguments, equivalents) for name in arguments.rooms or ROOMS]
    for room in rooms:
        run(room, arguments.budget)
    report(rooms, arguments.json)
    return int(any(room.score < LEAST for room in rooms))


if __name__ == "__main__":
    sys.exit(main())

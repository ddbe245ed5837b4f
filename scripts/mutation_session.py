"""The processes of scripts/mutants.py: pytest sessions in forks, and changed code in imported functions."""

import ast
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import os
import shutil
import signal
import tempfile
import time
import traceback
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest
from mutation_operators import Mutant

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(next(iter(importlib.util.find_spec("medalign").submodule_search_locations or ())))  # type: ignore[union-attr]
"""ROOT, as Python finds it: perhaps through a link."""
TIMED_OUT = "timed out"
SCREEN = os.dup(2)
"""Where forks, whose output is discarded, report progress."""


@dataclass
class Baseline:
    """What the unchanged code does: which tests pass, what they cost, and which lines they run."""

    cost: dict[str, float] = field(default_factory=dict)
    """Processor seconds of each test that passes, without its fixtures."""
    fixtures: dict[str, float] = field(default_factory=dict)
    fixtures_of: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Path, number of a line -> tests that run it, themselves or in one of their fixtures."""

    def tests_of(self, mutant: Mutant, budget: float) -> dict[str, float]:
        """Tests that may notice, of at most `budget` seconds in total: test -> its time limit in seconds.

        First those in the folder that mirrors the module's, and of both kinds the cheapest first.
        """
        lines = self.lines.get(mutant.path, {})
        where = map(str, mutant.lines) if mutant.function else lines
        tests = {test for line in where for test in lines.get(line, []) if test in self.cost}
        mirror = f"tests/{Path(mutant.path).parent.as_posix()}/"
        chosen, paid, total = dict[str, float](), set[str](), 0.0
        for test in sorted(tests, key=lambda test: (not test.startswith(mirror), self._price(test, set()), test)):
            price = self._price(test, paid)
            if not chosen or total + price <= budget:
                chosen[test] = 5 + 5 * self._price(test, set())
                total += price
                paid.update(self.fixtures_of[test])
        return chosen

    def _price(self, test: str, paid: set[str]) -> float:
        return self.cost[test] + sum(self.fixtures.get(name, 0) for name in self.fixtures_of[test] if name not in paid)


class Session:
    """A pytest plugin that collects as usual, then calls `work` instead of running the tests."""

    def __init__(self, work: Callable[["Session"], None]) -> None:
        self._work = work
        self.items: dict[str, pytest.Item] = {}
        self.failed: set[str] = set()
        self.passed: set[str] = set()
        self.cost: dict[str, float] = {}
        self.fixtures: defaultdict[str, float] = defaultdict(float)
        self.on_context: Callable[[str], object] = lambda _: None
        self._context = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        forked = {item.nodeid for item in session.items if "forks" in getattr(item, "fixturenames", ())}
        self.items = {item.nodeid: item for item in session.items if item.nodeid not in forked}
        self._work(self)
        return True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    def run(self, names: Iterable[str], limits: Mapping[str, float] | None = None) -> None:
        """Run tests; with time limits for them, stop at the first one that fails."""
        items = [self.items[name] for name in names if name in self.items]
        for item, following in zip(items, [*items, None][1:], strict=True):
            self._enter(item.nodeid)
            if limits is not None:
                limit_time(limits[item.nodeid])
            before, fixtures = time.process_time(), sum(self.fixtures.values())
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self.cost[item.nodeid] = time.process_time() - before - (sum(self.fixtures.values()) - fixtures)
            if limits is not None and self.failed:
                return

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[Any]:
        outer, start = self._context, time.process_time()
        self._enter(f"fixture {fixturedef.argname}")
        try:
            return (yield)
        finally:
            seconds = time.process_time() - start
            self.fixtures[fixturedef.argname] = max(self.fixtures[fixturedef.argname], seconds)
            self._enter(outer)

    def _enter(self, context: str) -> None:
        self._context = context
        self.on_context(context)


def forked(work: Callable[[], Any], seconds: float) -> Any:
    """The result of `work` in a forked process; `TIMED_OUT`, or None if the process ended itself or crashed.
    Temporary files and processes that it leaves are removed.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    child = os.fork()
    if child == 0:
        code = 0
        try:
            _begin_fork(folder, seconds)
            (folder / "result.json").write_text(json.dumps(work()))
        except (SystemExit, KeyboardInterrupt, pytest.exit.Exception):
            code = 1
        except BaseException:
            os.write(SCREEN, traceback.format_exc().encode())
            code = 70
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    result = folder / "result.json"
    answer = json.loads(result.read_text()) if status == 0 and result.exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 70:
        raise RuntimeError("the runner itself failed in a forked process; see above")
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return TIMED_OUT if ended_by in (signal.SIGALRM, signal.SIGPROF) else answer


def _begin_fork(folder: Path, seconds: float) -> None:
    os.setpgrp()
    limit_time(seconds)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)


def limit_time(seconds: float) -> None:
    """End this process after so much processor time, or ten times as long by the clock: others may use the machine."""
    for timer, number, limit in (
        (signal.ITIMER_REAL, signal.SIGALRM, 10 * seconds),
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
    ):
        signal.signal(number, signal.SIG_DFL)
        signal.setitimer(timer, limit)


def collect(tests: list[str], work: Callable[[Session], None]) -> None:
    os.chdir(ROOT)
    options = ["-q", "-s", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    rewriting = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that the parent has imported
    pytest.main([*tests, *options, *rewriting], plugins=[Session(work)])


def measure(session: Session, paths: list[str]) -> dict[str, Any]:
    """Run all tests on the unchanged code; the fields of a `Baseline`."""
    tracer = coverage.Coverage(data_file=None, config_file=False, include=[str(ROOT / path) for path in paths])
    session.on_context = tracer.switch_context
    tracer.start()
    session.run(session.items)
    tracer.stop()
    users: defaultdict[str, list[str]] = defaultdict(list)
    fixtures_of = {name: list(getattr(item, "fixturenames", ())) for name, item in session.items.items()}
    for name, fixtures in fixtures_of.items():
        users[name].append(name)
        for fixture in fixtures:
            users[f"fixture {fixture}"].append(name)
    lines = {}
    for path in paths:
        contexts = tracer.get_data().contexts_by_lineno(str(ROOT / path))
        lines[path] = {
            str(line): sorted({user for context in found for user in users[context]})
            for line, found in contexts.items()
        }
    cost = {name: max(session.cost[name], 0.0) for name in session.passed - session.failed}
    return {"cost": cost, "fixtures": session.fixtures, "fixtures_of": fixtures_of, "lines": lines}


def outcome(session: Session, tests: Mapping[str, float]) -> list[str]:
    """The first of the tests that fails, if any; each has a time limit."""
    session.run(tests, tests)
    return sorted(session.failed)


def functions(paths: list[str]) -> dict[str, list[types.FunctionType]]:
    """Functions of imported modules by `path | qualified name`, also decorated ones."""
    for path in paths:
        importlib.import_module(".".join(("medalign", *Path(path).with_suffix("").parts)).removesuffix(".__init__"))
    gc.unfreeze()
    found = defaultdict(list)
    files = {str(PACKAGE / path): path for path in paths}
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and thing.__code__.co_filename in files:
            found[f"{files[thing.__code__.co_filename]} | {thing.__code__.co_qualname}"].append(thing)
    gc.freeze()
    return found


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def swap(mutant: Mutant, tree: ast.Module, known: dict[str, list[types.FunctionType]]) -> bool:
    """Put the changed code into the imported function; whether that was possible."""
    old = mutant.put(mutant.new)
    try:
        module = compile(ast.fix_missing_locations(tree), str(PACKAGE / mutant.path), "exec")
    finally:
        mutant.put(old)
    swapped = False
    for code in codes(module):
        if code.co_qualname == mutant.function and code.co_firstlineno <= mutant.first_line in lines_of(code):
            for function in known.get(f"{mutant.path} | {mutant.function}", []):
                if mutant.first_line in lines_of(function.__code__):
                    if function.__code__.co_freevars != code.co_freevars:
                        return False
                    function.__code__ = code
                    swapped = True
    return swapped


def lines_of(code: types.CodeType) -> range:
    """Lines from the first decorator of a function to its last line."""
    return range(code.co_firstlineno, 1 + max(line or 0 for _, _, line in code.co_lines()))


def import_changed(mutant: Mutant, tree: ast.Module) -> None:
    """Have the changed source imported instead of the module's file."""
    old = mutant.put(mutant.new)
    source = ast.unparse(ast.fix_missing_locations(tree)).encode()
    mutant.put(old)
    loader, target = importlib.machinery.SourceFileLoader, str(PACKAGE / mutant.path)
    get_data, path_stats = loader.get_data, loader.path_stats

    def changed(self: Any, path: str) -> bytes:
        return source if path == target else get_data(self, path)

    def uncached(self: Any, path: str) -> Any:
        if path == target:
            raise OSError("its bytecode is of the unchanged source")
        return path_stats(self, path)

    loader.get_data, loader.path_stats = changed, uncached  # type: ignore[method-assign]

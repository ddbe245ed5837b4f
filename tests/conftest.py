"""Shared by all rooms: shapes checked by beartype, and a tiny student of exactly the real format."""

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    for library in ("OMP", "RAYON"):  # more threads than cores only wait for one another
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ["MEDALIGN_NO_REPORT"] = "1"  # tests of reports turn them on
os.environ["MEDALIGN_ASSETS"] = "/nonexistent/assets.json"  # not those of whoever runs the tests

import type_checks
from hypothesis import HealthCheck, settings

settings.register_profile("seeded", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("seeded")
gc.disable()  # what is imported now stays: looking for garbage among it is a sixth of the time of an import
type_checks.install("medalign.student", "medalign.teacher_cache")

from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import no_syncs  # noqa: E402
import pytest  # noqa: E402
import quick_libraries  # noqa: E402
import torch  # noqa: E402
import worker_servers  # noqa: E402
from forks import Forks  # noqa: E402

no_syncs.install()
quick_libraries.install()

LONGEST = (
    "test_distributed.py",
    "test_pages.py",
    "test_faults.py",
    "test_compare.py",
    "test_ray.py",
    "test_workers.py",
    "test_kills.py",
    "test_sharing.py",
    "test_pretended_gpu.py",
    "test_damaged_folders.py",
    "test_many_processes.py",
    "test_remote.py",
    "test_damage.py",
    "test_demo.py",
    "test_resume.py",
    "test_cli.py",
    "test_training_run.py",
    "test_quiet_commands.py",
    "test_decodings_on_phantoms.py",
)
"""Files that take longest begin first, the longest of all at once, so that no core waits at the end for one of them."""


def slow_tests() -> frozenset[str]:
    """Files, and functions in files, that `make test-fast` leaves out."""
    lines = Path(__file__).with_name("slow.txt").read_text().splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


@pytest.hookimpl(optionalhook=True)  # pytest runs without xdist too
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: some tests wait for processes that wait themselves."""
    return (os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    """Warnings of the tests' own modules are errors, as those of medalign are (pyproject.toml)."""
    config.addinivalue_line("markers", "slow: left out by `make test-fast`; given to what tests/slow.txt lists")
    for module in ("tests", *(path.stem for path in Path(__file__).parent.glob("*.py"))):
        config.addinivalue_line("filterwarnings", f"error:::{module}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    slow = slow_tests()
    for item in items:
        file, *names = item.nodeid.split("[")[0].split("::")
        if file in slow or "::".join((file, *names)) in slow:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.enable()
    keep_what_is_loaded()


def keep_what_is_loaded() -> None:
    """Take what is imported out of garbage collections: torch and transformers alone are a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _keeps_what_is_loaded() -> Iterator[None]:
    """A file's tests import more: matplotlib, scikit-learn, datasets."""
    yield
    keep_what_is_loaded()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Types words that are refused with exit code 2, and gives the message."""
    from command_tree import COMMANDS

    def type_words(*words: str) -> str:
        assert COMMANDS.main(list(words), prog_name="medalign", standalone_mode=False) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        return shown.err.strip()

    return type_words


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """The server of forked processes, which starts when it is first needed."""
    base = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    server = Forks(
        tmp_path_factory.mktemp("forks"),
        shared=base.parent if is_worker else base,
        session=os.getppid() if is_worker else os.getpid(),
    )
    yield server
    server.close()


@pytest.fixture(scope="session")
def forks(fork_server: Forks) -> Forks:
    """Runs scripts in forked processes. scripts/mutants.py leaves out the tests that use this fixture."""
    return fork_server


@pytest.fixture(scope="session", autouse=True)
def _worker_servers(fork_server: Forks) -> None:
    worker_servers.install(fork_server.address)


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers Llava folder: 24 x 24 pixels, 3 x 3 image tokens, 4 layers, grouped-query attention, bytes."""
    from students import write_tiny_student

    folder = tmp_path_factory.mktemp("student")
    write_tiny_student(folder)
    return folder

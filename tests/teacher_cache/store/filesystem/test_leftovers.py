"""Temporary files in a store: medalign's own are removed, other files are reported and kept."""

import shutil
from pathlib import Path

import pytest
from medalign.atomic import temporary_path
from medalign.teacher_cache.extraction.extension import extend
from medalign.teacher_cache.extraction.stage_one import finish
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.store.checking.verification import verify


@pytest.fixture
def store(finished, tmp_path) -> Path:
    """A store with temporary files of a killed command, and unrelated files with similar names."""
    copied = Path(shutil.copytree(finished, tmp_path / "s.zarr"))
    for key in ("zarr.json", "E_v/c/1/0/0", "ledger/000000.json", "index.parquet"):
        temporary_path(copied / key).write_bytes(b"half")
        (copied / f"{key}.partial").write_text("mine")
    (copied / "thesis.partial").mkdir()
    (copied / "thesis.partial" / "chapter.txt").write_text("mine")
    return copied


MINE = ["E_v/c/1/0/0.partial", "index.parquet.partial", "ledger/000000.json.partial", "thesis.partial/chapter.txt",
        "zarr.json.partial"]  # fmt: skip


def test_verify_reports_leftovers_and_unexpected_files(store):
    problems = verify(store).problems
    assert sorted(problem.key for problem in problems if problem.kind == "stranger") == MINE
    assert {problem.what for problem in problems if problem.kind == "leftover"} == {
        "is a temporary file of a command that was killed"
    }
    assert len(problems) == len(MINE) + 4


@pytest.mark.parametrize("command", ["repair", "finish", "extend", "extend by nothing"])
def test_only_medaligns_own_temporary_files_are_removed(command, store, teacher, make_images):
    run = {
        "repair": lambda: repair(store),
        "finish": lambda: finish(store),
        "extend": lambda: extend(teacher, make_images(9), store),
        "extend by nothing": lambda: extend(teacher, make_images(8), store),
    }
    run[command]()
    assert [(problem.kind, problem.key) for problem in verify(store).problems] == [("stranger", key) for key in MINE]
    assert all((store / key).read_text() == "mine" for key in MINE)

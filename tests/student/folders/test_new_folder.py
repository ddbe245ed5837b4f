"""New folders: nothing is left of one that fails."""

import pytest
from medalign.errors import MedalignError
from medalign.student.folders.model_folder import new_folder


def write_half(out, error):
    with new_folder(out) as folder:
        (folder / "part").write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_folder_leaves_none_of_the_folders_above_it(tmp_path, error):
    (tmp_path / "a").mkdir()
    with pytest.raises(error):
        write_half(tmp_path / "a" / "b" / "c" / "out", error)
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


def test_folders_inside_can_be_opened_by_others_and_files_are_readable(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        (folder / "inner").mkdir()
        (folder / "private").write_text("")
        (folder / "private").chmod(0o600)
    assert (tmp_path / "out" / "inner").stat().st_mode == (tmp_path / "out").stat().st_mode
    assert (tmp_path / "out" / "private").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(MedalignError, match="out cannot be written: No space left"):
        write_half(tmp_path / "out", OSError(28, "No space left on device"))
    assert list(tmp_path.iterdir()) == []

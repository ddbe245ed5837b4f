"""Links and pipes are refused at any depth of a store, whatever they point to."""

import os

import pytest
from medalign.teacher_cache.store.filesystem.plain_files import check_plain
from medalign.teacher_cache.store.store_errors import NotAFile


@pytest.mark.parametrize("kind", ["a link to a file", "a link to a folder", "a link to nothing", "a pipe"])
@pytest.mark.parametrize("folder", [".", "E_v", "E_v/c", "E_v/c/1/0"])
def test_what_is_not_a_file_is_refused(kind, folder, tmp_path):
    store = tmp_path / "a" / "b" / "s.zarr"
    (store / folder).mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    if kind == "a link to a file":
        (tmp_path / "file").touch()
    (store / folder / "0").touch()
    check_plain(store)
    path = store / folder / "1"
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / ("outside" if kind == "a link to a folder" else "file"))
    with pytest.raises(NotAFile, match="a pipe" if kind == "a pipe" else "a symbolic link"):
        check_plain(store)

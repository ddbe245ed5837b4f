"""A store of this machine may be named by a URL; then its links are refused as well."""

import pytest
from medalign.teacher_cache.store.filesystem.plain_files import check_location
from medalign.teacher_cache.store.store_errors import NotAFile


@pytest.mark.parametrize("start", ["", "file://", "local://"])
def test_links_are_refused_however_a_local_store_is_named(start, tmp_path):
    (tmp_path / "s.zarr" / "E_v").mkdir(parents=True)
    check_location(f"{start}{tmp_path}/s.zarr")
    (tmp_path / "s.zarr" / "E_v" / "0").symlink_to(tmp_path)
    with pytest.raises(NotAFile, match=r"s\.zarr/E_v/0 is a symbolic link"):
        check_location(f"{start}{tmp_path}/s.zarr")


@pytest.mark.parametrize("url", ["memory://lab/s.zarr", "https://lab.example/s.zarr", "s3://lab/s.zarr"])
def test_folders_here_are_no_part_of_a_store_elsewhere(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / url.partition("://")[2], tmp_path / url):
        path.mkdir(parents=True)
        (path / "0").symlink_to(tmp_path)
    check_location(url)

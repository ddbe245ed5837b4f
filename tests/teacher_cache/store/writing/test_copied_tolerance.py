"""A copy promises no smaller change of S than the stores that its rows come from."""

import pytest
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.writing.row_copies import About, RowsOf, copy_rows
from stores import write_store


@pytest.mark.parametrize(("first", "second", "expected"), [(0.25, 0.5, 0.5), (0.5, 0.25, 0.5), (0.5, None, None)])
def test_a_copy_has_the_largest_tolerance_of_its_sources(first, second, expected, tmp_path):
    paths = [
        write_store(tmp_path / f"{image}.zarr", [image], tolerance=tolerance)
        for image, tolerance in enumerate([first, second])
    ]
    sources = [RowsOf(store=open_store(path), positions=[0]) for path in paths]
    copy_rows(sources, [], tmp_path / "copy.zarr", About(data_use="public"))
    assert open_store(tmp_path / "copy.zarr").header.tolerance == expected

"""A store of each kind of content, and a copy of it for each test to damage."""

import shutil
from pathlib import Path

import pytest
from stores import write_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Three shards of four rows; row 5 failed, and a file could not be read."""
    out = tmp_path_factory.mktemp("whole") / "s.zarr"
    return write_store(out, range(12), failing=[5], unreadable=["a pipe"])


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy.zarr"))

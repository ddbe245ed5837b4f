"""Rows of stores that no test can write: positions beyond those of 32-bit integers."""

from types import SimpleNamespace

import pyarrow as pa
import pytest
from medalign.teacher_cache.store.writing import row_copies


@pytest.mark.parametrize("position", [0, 2**31 - 1, 2**31])
def test_rows_are_copied_from_any_position(position, monkeypatch):
    """A column of nulls takes no memory, whatever its length."""
    nulls = pa.nulls(2**31 + 1)
    store = SimpleNamespace(
        index_columns=lambda names: pa.table(dict.fromkeys(names, nulls)), profile_of=lambda position: f"of {position}"
    )
    source = SimpleNamespace(store=store, positions=[position, 7])
    rows = list(row_copies._rows(source))
    assert [(row.position, row.profile, row.sha256) for row in rows] == [
        (position, f"of {position}", None),
        (7, "of 7", None),
    ]

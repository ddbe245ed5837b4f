"""Decoded rows are float32 in memory of their own, whatever the profile and the grids."""

import numpy as np
import pytest
import torch
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store.format.profiles import PROFILES, decode, encode

NATIVE = PatchGrid(3, 4)


@pytest.mark.parametrize("grid", [PatchGrid(5, 6), NATIVE], ids=["interpolated", "native grid"])
@pytest.mark.parametrize("profile", PROFILES)
def test_decoded_rows_are_float32_and_may_be_changed(profile, grid):
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(2, NATIVE.patches, 8, generator=generator)
    stored = encode(profile, patches, torch.rand(2, NATIVE.patches, generator=generator), NATIVE, grid).arrays
    before = {name: values.copy() for name, values in stored.items()}
    rows = decode(profile, stored, NATIVE, grid)
    assert {values.dtype for values in rows if values is not None} == {torch.float32}
    assert (rows.E_v is None) != (rows.S is None)
    for values in (rows.E_v, rows.S):
        if values is not None:
            values.mul_(0)
    for name, values in before.items():
        np.testing.assert_array_equal(stored[name], values)

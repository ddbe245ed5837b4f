"""Restored cosines are cosines, whatever the stored numbers add up to."""

import pytest
import torch
from medalign.teacher_cache.store.format.codecs import restore_cosines


@pytest.mark.parametrize("lowest", [-1.5, -0.25, 1.0001, 1.5])
def test_cosines_are_between_minus_one_and_one(lowest):
    scale = torch.tensor([[lowest, 0.0]])
    found = restore_cosines(torch.zeros(1, 3, dtype=torch.uint16), scale, torch.zeros(1, 3, 4, dtype=torch.float16))
    expected = torch.full((1, 3, 3), min(max(lowest, -1.0), 1.0))
    expected[0].fill_diagonal_(1)
    assert torch.equal(found, expected)

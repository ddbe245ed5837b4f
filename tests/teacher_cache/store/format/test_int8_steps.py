"""int8 as docs/stores.md states it: 255 steps of max |x| / 127, so that the largest value is step 127 of its patch."""

import pytest
import torch
from medalign.teacher_cache.store.format.codecs import quantize_int8


def test_the_largest_value_is_step_127_and_the_others_round_to_their_nearest_step():
    patches = torch.tensor([[[127.0, -63.4, 0.6, 0.4], [-254.0, 127.0, 2.9, 0.9], [0.0, 0.0, 0.0, 0.0]]])
    steps, scale = quantize_int8(patches)
    assert steps.tolist() == [[[127, -63, 1, 0], [-127, 64, 1, 0], [0, 0, 0, 0]]]
    assert scale.tolist() == [[1.0, 2.0, 0.0]]


def test_an_error_is_at_most_half_a_step_of_the_largest_value():
    patches = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    steps, scale = quantize_int8(patches)
    assert steps.abs().amax(dim=-1).eq(127).all()
    largest = patches.abs().amax(dim=-1, keepdim=True).double()
    restored = steps.double() * largest / 127
    assert ((restored - patches).abs() <= largest / 254 * (1 + 1e-5)).all()
    torch.testing.assert_close(scale.double()[..., None], largest / 127, rtol=1e-6, atol=0)


def test_values_too_small_for_a_step_in_float32_are_zero():
    """1e-44 / 127 is 0 in float32, and so is the scale."""
    steps, scale = quantize_int8(torch.tensor([[[1e-44, -1e-44, 0.0]]]))
    assert steps.tolist() == [[[0, 0, 0]]]
    assert scale.tolist() == [[0.0]]


@pytest.mark.parametrize("units", [190, 200, 318, 10_000])
def test_the_steps_of_values_too_small_for_exact_division_are_symmetric(units):
    """Multiples of the smallest float32, 2^-149: their scale is rounded, so the largest would be up to 190 steps."""
    patches = torch.tensor([[[units * 2.0**-149, -units * 2.0**-149, 0.0]]])
    (steps,), _ = quantize_int8(patches)
    assert steps[0, 0] == -steps[0, 1]
    assert 1 <= steps[0, 0] <= 127
    (mirrored,), _ = quantize_int8(-patches)
    assert torch.equal(mirrored, -steps)

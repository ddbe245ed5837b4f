"""Agreement and IoU by chance against NumPy in float64, where float32 or half precision would not be enough."""

import math

import numpy as np
import pytest
import torch
from medalign.student.metrics.region_attention import cosine_agreement, energy_iou_expected_by_chance


def off_diagonal(matrix: torch.Tensor) -> np.ndarray:
    return matrix.double().numpy()[~np.eye(len(matrix), dtype=bool)]


def test_agreement_of_nearly_constant_matrices():
    """Cosines of similar patches differ by 1e-5, which the mean's rounding in float32 would disturb."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 24, 24, generator=generator)
    first, second = 0.9 + 1e-6 * noise[0], 0.9 + 1e-6 * (noise[0] + noise[1])
    found = cosine_agreement(first, second)
    assert found.dtype == torch.float32
    expected = np.corrcoef(off_diagonal(first), off_diagonal(second))[0, 1]
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_a_constant_matrix_agrees_with_nothing():
    constant, other = torch.full((5, 5), 0.3), torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    for first, second in ((constant, other), (other, constant), (constant, constant)):
        assert math.isnan(cosine_agreement(first, second).item())
    assert cosine_agreement(other, 2 * other - 1).item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_iou_by_chance_is_rounded_only_once(dtype):
    coverage = torch.rand(3, 576, generator=torch.Generator().manual_seed(1)).to(dtype)
    n, drawn = 576, 288
    area = coverage.double().numpy()
    total, mean = drawn + area.sum(axis=1), drawn * area.mean(axis=1)
    variance = drawn * (n - drawn) / (n - 1) * area.var(axis=1)
    expected = mean / (total - mean) + variance * total / (total - mean) ** 3
    torch.testing.assert_close(
        energy_iou_expected_by_chance(coverage), torch.from_numpy(expected).to(dtype), rtol=0, atol=0
    )

"""Cosines in 16 bits: 65,536 levels are enough for any range, and the prediction is that of a fixed start."""

import math

import numpy as np
import pytest
import torch
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from medalign.teacher_cache.store.format.codecs import predict_cosines, quantize_cosines, restore_cosines


def cosines(patches: int, width: int, seed: int = 0) -> torch.Tensor:
    return cosine_matrix(torch.randn(2, patches, width, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("step", [1e-9, 1e-6, 1e-4])
def test_a_step_too_small_for_sixteen_bits_grows_to_65535_steps_of_the_range(step):
    """Opposite patches have cosine -1, so without a prediction the remainder has range 2."""
    patches = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8], [1.0, 0.0], [0.8, -0.6]]])
    exact, none = cosine_matrix(patches), torch.zeros(1, 5, 4, dtype=torch.float16)
    levels, scale = quantize_cosines(exact, none, step)
    expected = max(2 / 65535, step)
    assert scale[0].tolist() == pytest.approx([-1.0, expected], rel=1e-5)
    assert levels.dtype == torch.uint16
    assert levels.int().amin() == 0
    assert levels.int().amax() == round(2 / expected)
    error = (restore_cosines(levels, scale, none) - exact).abs().max()
    assert error <= expected / 2 + 2e-7


def reference(matrix: np.ndarray) -> np.ndarray:
    """F F^T in float64: four steps from cos(pi j k / M), then the eigenvectors within that subspace."""
    patches = len(matrix)
    columns = range(min(4, patches))
    basis = np.array([[math.cos(math.pi * row * column / patches) for column in columns] for row in range(patches)])
    for _ in range(4):
        basis, _ = np.linalg.qr(matrix @ basis)
    weights, rotation = np.linalg.eigh(basis.T @ matrix @ basis)
    factors = basis @ rotation * np.sqrt(np.maximum(weights, 0))
    return factors @ factors.T


@pytest.mark.parametrize(("patches", "width"), [(2, 9), (3, 2), (5, 9), (24, 12), (24, 100)])
def test_the_prediction_is_four_steps_of_subspace_iteration_from_a_fixed_start(patches, width):
    """Where four steps are not enough to converge, the start determines the bytes that every lab gets."""
    exact = cosines(patches, width)
    factors = predict_cosines(exact)
    assert (factors.dtype, factors.shape) == (torch.float16, (2, patches, min(4, patches)))
    for image in range(2):
        values = factors[image].double().numpy()
        np.testing.assert_allclose(values @ values.T, reference(exact[image].double().numpy()), atol=3e-3)


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_cosines_of_few_dimensions_are_predicted_exactly(rank):
    exact = cosines(20, rank)
    values = predict_cosines(exact).double()
    assert (values @ values.transpose(1, 2) - exact).abs().max() < 3e-3

"""Losses of half precision inputs: the mathematics in float64 of the same rounded values, to float32's precision."""

import numpy as np
import pytest
import torch
from medalign.student.alignment.losses import attention_alignment_loss, teacher_cosines, visual_alignment_loss
from medalign.student.alignment.rotation import Rotation
from medalign.teacher_cache.geometry.cosines import cosine_matrix, largest_cosine_change

HALVES = [torch.bfloat16, torch.float16]


def patches(dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Values up to about 300, whose squares are too large for float16."""
    return (100 * torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(seed))).to(dtype)


def cosines(values: torch.Tensor) -> np.ndarray:
    rows = values.double().numpy()
    unit = rows / np.sqrt((rows**2).sum(axis=-1, keepdims=True))
    return np.einsum("kic,kjc->kij", unit, unit)


@pytest.mark.parametrize("dtype", HALVES)
def test_visual_loss_of_half_precision_features(dtype):
    student, teacher = patches(dtype, 1), patches(dtype, 2)
    losses = visual_alignment_loss(cosine_matrix(student), teacher_cosines(teacher, None))
    assert losses.dtype == torch.float32
    expected = ((cosines(student) - cosines(teacher)) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", HALVES)
def test_change_of_cosines_of_half_precision_features(dtype):
    exact = patches(torch.float32, 3)
    rounded = exact.to(dtype)
    change = largest_cosine_change(rounded, exact)
    assert change.dtype == torch.float32
    expected = np.abs(cosines(rounded) - cosines(exact)).max(axis=(1, 2))
    np.testing.assert_allclose(change.numpy(), expected, rtol=1e-3)
    np.testing.assert_allclose(largest_cosine_change(exact, rounded).numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("normalization", ["sum", "softmax", "l2"])
def test_attention_loss_of_half_precision_maps(dtype, normalization):
    generator = torch.Generator().manual_seed(4)
    student, teacher = ((torch.rand(3, 50, generator=generator) + 0.01).to(dtype) for _ in range(2))
    losses = attention_alignment_loss(student, teacher, normalization)
    assert losses.dtype == torch.float32
    p, t = student.double().numpy(), teacher.double().numpy()
    if normalization == "softmax":
        p, t = np.exp(p), np.exp(t)
    order = 2 if normalization == "l2" else 1
    p, t = (values / np.linalg.norm(values, ord=order, axis=1, keepdims=True) for values in (p, t))
    expected = (t * np.log(t / p)).sum(axis=1) / (50 if normalization == "l2" else 1)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", HALVES)
def test_w_is_applied_in_the_precision_of_the_tokens(dtype):
    rotation = Rotation(16)
    torch.nn.init.normal_(rotation.weight, std=0.1)
    tokens = patches(dtype, 5)
    found = rotation(tokens)
    assert found.dtype == dtype
    weight = rotation.weight.detach().to(dtype).double().numpy()
    expected = tokens.double().numpy() @ (np.eye(16) + weight.T)
    np.testing.assert_allclose(found.detach().double().numpy(), expected, atol=0.01 * np.abs(expected).max())

"""L_vis and L_att compared with slow reference implementations of the same equations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.student.alignment.losses import (
    attention_alignment_loss,
    region_alignment_loss,
    teacher_cosines,
    visual_alignment_loss,
)
from medalign.teacher_cache.geometry.cosines import cosine_matrix

K, N, D, C = 3, 7, 5, 4


def loop_cosine(a: list[float], b: list[float]) -> float:
    norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm


def loop_visual(student: list[list[float]], teacher: list[list[float]]) -> float:
    total = 0.0
    for i in range(len(student)):
        for j in range(len(student)):
            gap = loop_cosine(teacher[i], teacher[j]) - loop_cosine(student[i], student[j])
            total += gap**2
    return total / len(student) ** 2


def loop_attention(student: list[float], teacher: list[float], normalization: str) -> float:
    def normalize(values: list[float]) -> list[float]:
        if normalization == "softmax":
            values = [math.exp(value) for value in values]
        scale = math.sqrt(sum(v * v for v in values)) if normalization == "l2" else sum(values)
        return [value / scale for value in values]

    p, t = normalize(student), normalize(teacher)
    total = sum(b * (math.log(b) - math.log(a)) for a, b in zip(p, t, strict=True) if b > 0)
    return total / len(p) if normalization == "l2" else total


def loss_of_features(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return visual_alignment_loss(cosine_matrix(student), teacher_cosines(teacher, None))


def test_visual_loss_equals_a_double_loop():
    student, teacher = torch.randn(K, N, D), torch.randn(K, N, C)
    expected = [loop_visual(s, t) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    torch.testing.assert_close(loss_of_features(student, teacher), torch.tensor(expected), atol=1e-6, rtol=0)


def test_weighted_visual_loss_equals_a_double_loop():
    student, teacher, a = torch.randn(K, N, D), torch.randn(K, N, C), torch.rand(K, N).softmax(dim=1)
    S_x, S_e = cosine_matrix(student), cosine_matrix(teacher)
    expected = [
        sum(a[k, i] * a[k, j] * (S_e[k, i, j] - S_x[k, i, j]) ** 2 for i in range(N) for j in range(N))
        for k in range(K)
    ]
    torch.testing.assert_close(visual_alignment_loss(S_x, S_e, a), torch.tensor(expected), atol=1e-6, rtol=0)
    equal = torch.full((K, N), 1 / N)
    torch.testing.assert_close(visual_alignment_loss(S_x, S_e, equal), visual_alignment_loss(S_x, S_e))


def test_teacher_cosines_are_given_or_computed_from_features():
    features = torch.randn(K, N, C)
    assert torch.equal(teacher_cosines(features, None), cosine_matrix(features))
    given = torch.rand(K, N, N)
    assert teacher_cosines(None, given) is given
    assert teacher_cosines(None, None) is None


@pytest.mark.parametrize("normalization", ["sum", "softmax", "l2"])
def test_attention_loss_equals_a_loop(normalization):
    student, teacher = torch.rand(K, N) + 1e-3, torch.rand(K, N)
    teacher[0, 2] = 0
    expected = [loop_attention(s, t, normalization) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    actual = attention_alignment_loss(student, teacher, normalization)
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-6, rtol=0)


def test_the_released_form_equals_torchs_kl_div_of_l2_normalized_maps():
    student, teacher = torch.rand(N) + 0.1, torch.rand(N)
    p, t = torch.nn.functional.normalize(student, dim=0), torch.nn.functional.normalize(teacher, dim=0)
    released = torch.nn.functional.kl_div(p.log(), t, reduction="batchmean")
    actual = attention_alignment_loss(student[None], teacher[None], "l2")[0]
    torch.testing.assert_close(actual, released, atol=1e-6, rtol=0)


def test_the_released_form_is_negative_at_the_square_root_of_the_teacher():
    teacher = torch.rand(1, N) + 0.1
    at_match = attention_alignment_loss(teacher, teacher, "l2")
    at_root = attention_alignment_loss(teacher.sqrt(), teacher, "l2")
    assert at_root.item() < at_match.item()
    assert at_root.item() < 0


def test_underflowed_attention_gives_a_finite_loss_and_gradient():
    student = torch.tensor([[0.0, 0.5, 0.5]], requires_grad=True)
    loss = attention_alignment_loss(student, torch.tensor([[0.2, 0.4, 0.4]]), "sum").sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def seeded_pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, N, D, generator=generator), torch.randn(1, N, C, generator=generator)


@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 50))
@settings(max_examples=30, deadline=None)
def test_visual_loss_ignores_scale_and_orthogonal_maps(seed, scale):
    student, teacher = seeded_pair(seed)
    turn, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(seed)))
    torch.testing.assert_close(
        loss_of_features(student @ turn * scale, teacher),
        loss_of_features(student, teacher),
        atol=2e-5,
        rtol=0,
    )


@given(seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_visual_loss_is_in_its_range_and_zero_for_equal_structure(seed):
    student, teacher = seeded_pair(seed)
    loss = loss_of_features(student, teacher).item()
    assert 0 <= loss <= 4
    assert loss_of_features(student, student).item() < 1e-10
    assert cosine_matrix(student).abs().max() <= 1 + 1e-5


@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_sum_normalized_loss_is_a_true_kl(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    student = torch.rand(1, N, generator=generator) + 1e-3
    teacher = torch.rand(1, N, generator=generator) + 1e-3
    assert attention_alignment_loss(student, teacher, "sum").item() >= -1e-6
    assert attention_alignment_loss(teacher * scale, teacher, "sum").abs().item() < 1e-5


def loop_regions(student: list[float], regions: list[float], teacher: list[float] | None, normalization: str) -> float:
    """L_att with the mean of two targets, each normalized first; 0 without any target."""

    def normalize(values: list[float]) -> list[float]:
        if normalization == "softmax":
            values = [math.exp(value) for value in values]
        scale = math.sqrt(sum(v * v for v in values)) if normalization == "l2" else sum(values)
        return [value / scale for value in values]

    targets = ([normalize(regions)] if any(regions) else []) + ([] if teacher is None else [normalize(teacher)])
    total = 0.0
    for n, p in enumerate(normalize(student)):
        t = sum(target[n] for target in targets) / max(len(targets), 1)
        total += t * (math.log(t) - math.log(p)) if t > 0 else 0.0
    return total / len(student) if normalization == "l2" else total


@pytest.mark.parametrize("normalization", ["sum", "softmax", "l2"])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_region_loss_equals_the_loop_and_an_image_without_regions_has_no_gradient(normalization, with_teacher):
    generator = torch.Generator().manual_seed(3)
    student = torch.rand(K, N, generator=generator, requires_grad=True)
    regions = torch.rand(K, N, generator=generator) * (torch.rand(K, N, generator=generator) > 0.5)
    regions[1] = 0
    teacher = torch.rand(K, N, generator=generator) if with_teacher else None
    loss = region_alignment_loss(student, regions, teacher, normalization)
    for image in range(K):
        E_a = None if teacher is None else teacher[image].tolist()
        slow = loop_regions(student[image].tolist(), regions[image].tolist(), E_a, normalization)
        assert loss[image].item() == pytest.approx(slow, abs=1e-6)
    loss.sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert bool(student.grad[1].any()) == with_teacher
    if teacher is not None:
        torch.testing.assert_close(
            loss[1], attention_alignment_loss(student, teacher, normalization)[1], rtol=1e-5, atol=1e-9
        )

"""Precision of the losses: L_att compared with mpmath, and all losses under a training step's autocast."""

import math

import mpmath
import pytest
import torch
from medalign.student.alignment.attention_rows import _summed_rows
from medalign.student.alignment.losses import attention_alignment_loss
from medalign.student.inputs.spans import ImageSpans
from medalign.student.loading.student_loading import open_student
from torch.nn import functional

PATCHES = 576


def maps(generator: torch.Generator, temperature: float) -> torch.Tensor:
    """A realistic attention map: a softmax over 700 keys, of which the image's 576 are kept."""
    scores = temperature * torch.randn(2, 700, generator=generator)
    return scores.softmax(dim=-1)[:, :PATCHES]


def exact(student: list[float], teacher: list[float], normalization: str) -> tuple[mpmath.mpf, list[mpmath.mpf]]:
    """Eq. 5 with 40 digits, and its gradient with respect to the student's map, by the quotient rule."""
    with mpmath.workdps(40):
        m, e = [mpmath.mpf(value) for value in student], [mpmath.mpf(value) for value in teacher]
        if normalization == "softmax":
            m_up, e_up = [mpmath.exp(value) for value in m], [mpmath.exp(value) for value in e]
            p, t = ([value / mpmath.fsum(up) for value in up] for up in (m_up, e_up))
            gradient = [a - b for a, b in zip(p, t, strict=True)]
        elif normalization == "sum":
            total = mpmath.fsum(m)
            p, t = [value / total for value in m], [value / mpmath.fsum(e) for value in e]
            gradient = [1 / total - b / a for a, b in zip(m, t, strict=True)]
        else:
            square = mpmath.fsum(value**2 for value in m)
            p = [value / mpmath.sqrt(square) for value in m]
            t = [value / mpmath.sqrt(mpmath.fsum(v**2 for v in e)) for value in e]
            gradient = [(a * mpmath.fsum(t) / square - b / a) / PATCHES for a, b in zip(m, t, strict=True)]
        loss = mpmath.fsum(b * (mpmath.log(b) - mpmath.log(a)) for a, b in zip(p, t, strict=True))
        return loss / (PATCHES if normalization == "l2" else 1), gradient


@pytest.mark.parametrize("normalization", ["softmax", "sum", "l2"])
@pytest.mark.parametrize("highest", [None, 1.0])
def test_attention_loss_and_gradient_have_float32_precision(normalization, highest):
    """E_a as from BiomedCLIP, and divided by its maximum, as from UniMed-L."""
    generator = torch.Generator().manual_seed(5)
    student, teacher = maps(generator, 1.0).requires_grad_(), maps(generator, 1.5)
    teacher = teacher if highest is None else highest * teacher / teacher.amax(dim=-1, keepdim=True)
    losses = attention_alignment_loss(student, teacher, normalization)
    losses.sum().backward()
    assert losses.dtype == student.grad.dtype == torch.float32
    for row in range(2):
        loss, gradient = exact(student[row].tolist(), teacher[row].tolist(), normalization)
        assert losses[row].item() == pytest.approx(float(loss), rel=2e-7)
        expected = torch.tensor([float(value) for value in gradient], dtype=torch.float64)
        largest = expected.abs().max().item()
        torch.testing.assert_close(student.grad[row].double(), expected, rtol=1e-6, atol=1e-8 * largest)


def test_attention_rows_of_half_precision_queries_are_computed_in_float32():
    """In bfloat16, scores of 20 to 40 would have an error of about 0.1, and their exponentials of about 10 %."""
    generator = torch.Generator().manual_seed(6)
    query, key = (4 * torch.randn(1, heads, 14, 16, generator=generator).bfloat16() for heads in (4, 2))
    images = ImageSpans(sample=torch.tensor([0]), positions=torch.arange(1, 10)[None])
    rows = torch.tensor([[10, 11, 12]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _summed_rows(query, key, None, 0.25, images, rows, torch.ones_like(rows, dtype=torch.bool)) / 3
    expected = torch.zeros(9, dtype=torch.float64)
    for head in range(4):
        for row in (10, 11, 12):
            scores = 0.25 * key[0, head // 2, : row + 1].double() @ query[0, head, row].double()
            expected += scores.softmax(dim=0)[1:10] / 12
    torch.testing.assert_close(found[0].double(), expected, rtol=2e-5, atol=1e-9)


def test_losses_are_float32_under_autocast(student_folder):
    """With bfloat16 weights and autocast: L_vis and L_att of the layer's tokens and attention maps."""
    student = open_student(student_folder, layers=[2], rotation="full", dtype="bfloat16")
    generator = torch.Generator().manual_seed(3)
    batch = {
        "input_ids": torch.tensor([[1, *[3] * 9, 80, 90, 100, 2]]),
        "attention_mask": torch.ones(1, 14, dtype=torch.long),
        "labels": torch.tensor([[*[-100] * 12, 100, 2]]),
        "pixel_values": torch.randn(1, 3, 24, 24, generator=generator),
    }
    E_v, E_a = torch.randn(1, 9, 5, generator=generator), torch.rand(1, 9, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = student.model(**batch, E_v=E_v, E_a=E_a, autocast=torch.bfloat16)
    (layer,) = output.layers
    assert {value.dtype for value in (output.loss_lm, output.loss_vis, output.loss_att)} == {torch.float32}
    ours, theirs = functional.normalize(layer.tokens.double(), dim=-1), functional.normalize(E_v.double(), dim=-1)
    gaps = ours @ ours.transpose(1, 2) - theirs @ theirs.transpose(1, 2)
    assert output.loss_vis.item() == pytest.approx(gaps.square().mean().item(), rel=1e-5)
    p, t = layer.attention[0].tolist(), E_a[0].tolist()
    p, t = [value / sum(p) for value in p], [value / sum(t) for value in t]
    expected = sum(b * math.log(b / a) for a, b in zip(p, t, strict=True))
    assert output.loss_att.item() == pytest.approx(expected, rel=1e-6)

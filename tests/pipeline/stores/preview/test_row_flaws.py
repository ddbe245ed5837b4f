"""Flaws of single rows: each made on purpose in a sound row, and none in sound rows of any profile."""

import math

import numpy as np
import pytest
import torch
from medalign.pipeline.stores.preview.row_flaws import attention_entropy, find_flaws, mean_cosine, similarity_of
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import TeacherTarget
from medalign.teacher_cache.store.format.profiles import PROFILES, decode, encode

NATIVE, GRID = PatchGrid(4, 4), PatchGrid(6, 6)


def sound_row(seed: int, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    E_v = torch.randn(1, NATIVE.patches, width, generator=generator) + torch.randn(width, generator=generator)
    return E_v, torch.randn(1, NATIVE.patches, generator=generator).softmax(dim=-1)


def kinds(E_v: torch.Tensor, E_a: torch.Tensor, profile: str = "float16") -> list[str]:
    """The flaws of a teacher's output after it was stored and read."""
    stored = encode(profile, E_v, E_a, NATIVE, GRID)
    rows = decode(profile, stored.arrays, NATIVE, GRID)
    target = TeacherTarget(
        E_v=None if rows.E_v is None else rows.E_v[0], S=None if rows.S is None else rows.S[0], E_a=rows.E_a[0]
    )
    return [flaw.kind for flaw in find_flaws(target, similarity_of(target), NATIVE)]


@pytest.mark.parametrize("profile", PROFILES)
def test_sound_rows_have_no_flaw(profile):
    assert [kinds(*sound_row(seed), profile) for seed in range(20)] == [[]] * 20


def broken(what: str) -> tuple[torch.Tensor, torch.Tensor]:
    E_v, E_a = sound_row(0)
    if what == "zero":
        E_v[0, :8] = 0
    elif what == "constant":
        E_v[:] = E_v[0, 0]
    elif what == "saturated":
        E_v = E_v.clamp(-0.5, 0.5)
    elif what == "no attention":
        E_a[:] = 0
    elif what == "uniform":
        E_a[:] = 1 / NATIVE.patches
    elif what == "one cell":
        E_a = torch.nn.functional.one_hot(torch.tensor([5]), NATIVE.patches).float()
    elif what == "negative":
        E_a[0, 3] = -0.5
    elif what == "cut off":
        E_a = E_a.clamp(max=float(E_a.median()))
    return E_v, E_a


@pytest.mark.parametrize("what", ["zero", "constant", "saturated"])
def test_a_broken_row_has_its_flaw(what):
    assert kinds(*broken(what)) == [what]


@pytest.mark.parametrize("profile", ["native", "int8", "gram16", "gram12"])
@pytest.mark.parametrize("what", ["zero", "constant"])
def test_zero_and_constant_rows_show_in_every_profile(what, profile):
    assert kinds(*broken(what), profile) == [what]


@pytest.mark.parametrize("what", ["no attention", "uniform", "one cell", "negative", "cut off"])
@pytest.mark.parametrize("profile", ["float16", "gram16"])
def test_attention_that_no_teacher_has(what, profile):
    assert kinds(*broken(what), profile) == ["impossible attention"]


def test_entropy_and_mean_cosine_against_their_definitions():
    E_v, E_a = sound_row(1)
    p = (E_a[0] / E_a[0].sum()).numpy().astype(np.float64)
    assert attention_entropy(3 * E_a[0]) == pytest.approx(-sum(x * math.log(x) for x in p), abs=1e-6)
    assert math.isnan(attention_entropy(torch.zeros(4)))
    S = cosine_matrix(E_v)[0]
    pairs = [float(S[i, j]) for i in range(len(S)) for j in range(len(S)) if i != j]
    assert mean_cosine(S) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)

"""Grounding measures against loops over cells and pixels."""

import math

import numpy as np
import pytest
import torch
from medalign.student.metrics.grounding import (
    attention_mass_inside,
    cosine_agreement,
    hits_expected_by_chance,
    mask_coverage,
    mass_expected_by_chance,
    pointing_hit,
)
from medalign.teacher_cache.geometry import PatchGrid


def random_maps(seed, batch=5, patches=12):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(batch, patches, generator=generator)
    coverage = torch.rand(batch, patches, generator=generator) * (torch.rand(batch, patches, generator=generator) > 0.6)
    return attention, coverage


@pytest.mark.parametrize("seed", range(3))
def test_measures_equal_loops_over_cells(seed):
    attention, coverage = random_maps(seed)
    for index in range(len(attention)):
        row, covered = attention[index].tolist(), coverage[index].tolist()
        inside = sum(a * c for a, c in zip(row, covered, strict=True)) / sum(row)
        assert attention_mass_inside(attention, coverage)[index].item() == pytest.approx(inside, abs=1e-6)
        hit = float(covered[row.index(max(row))] > 0)
        assert pointing_hit(attention, coverage)[index].item() == hit
        chance = sum(c > 0 for c in covered) / len(covered)
        assert hits_expected_by_chance(coverage)[index].item() == pytest.approx(chance)
        area = sum(covered) / len(covered)
        assert mass_expected_by_chance(coverage)[index].item() == pytest.approx(area)


def test_batched_and_single_maps_agree():
    attention, coverage = random_maps(9)
    assert attention_mass_inside(attention[2], coverage[2]) == attention_mass_inside(attention, coverage)[2]
    assert pointing_hit(attention[2], coverage[2]) == pointing_hit(attention, coverage)[2]


def test_uniform_attention_scores_chance():
    _, coverage = random_maps(4)
    uniform = torch.full_like(coverage, 0.01)
    torch.testing.assert_close(attention_mass_inside(uniform, coverage), mass_expected_by_chance(coverage))


def test_the_scale_of_attention_does_not_matter():
    attention, coverage = random_maps(5)
    torch.testing.assert_close(
        attention_mass_inside(attention * 7, coverage), attention_mass_inside(attention, coverage)
    )


def test_an_empty_region_has_no_measure():
    attention, coverage = random_maps(6)
    nothing = torch.zeros_like(coverage)
    for measure in (
        attention_mass_inside(attention, nothing),
        pointing_hit(attention, nothing),
        mass_expected_by_chance(nothing),
        hits_expected_by_chance(nothing),
    ):
        assert measure.isnan().all()


@pytest.mark.parametrize(("side", "grid"), [(12, PatchGrid(3, 4)), (10, PatchGrid(4, 3)), (5, PatchGrid(8, 8))])
def test_coverage_equals_counting_fine_samples(side, grid):
    mask = np.random.default_rng(side).integers(0, 3, (side, side))
    coverage = mask_coverage(torch.from_numpy(mask), grid).reshape(grid.rows, grid.columns)
    fine = math.lcm(side, grid.rows, grid.columns)
    large = np.kron(mask != 0, np.ones((fine // side, fine // side)))
    for row in range(grid.rows):
        for column in range(grid.columns):
            tall, wide = fine // grid.rows, fine // grid.columns
            cell = large[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
            assert coverage[row, column].item() == pytest.approx(cell.mean(), abs=1e-6)


def cosine_matrix(seed, patches=9):
    features = torch.randn(patches, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)


def test_agreement_equals_numpy_over_the_pairs():
    first, second = cosine_matrix(1), cosine_matrix(2)
    pairs = [(i, j) for i in range(9) for j in range(9) if i != j]
    expected = np.corrcoef([first[i, j].item() for i, j in pairs], [second[i, j].item() for i, j in pairs])[0, 1]
    assert cosine_agreement(first, second).item() == pytest.approx(expected, abs=1e-6)


def test_agreement_ignores_scale_and_offset_and_sees_opposites():
    matrix = cosine_matrix(3)
    assert cosine_agreement(matrix, 0.2 * matrix + 0.5).item() == pytest.approx(1, abs=1e-6)
    assert cosine_agreement(matrix, -matrix).item() == pytest.approx(-1, abs=1e-6)
    assert cosine_agreement(matrix, torch.ones(9, 9)).isnan()

"""Grounding measures compared with loops over cells and pixels."""

import math

import numpy as np
import pytest
import torch
from medalign.student.metrics.region_attention import (
    attention_mass_inside,
    cosine_agreement,
    energy_cells,
    energy_iou,
    energy_iou_expected_by_chance,
    hits_expected_by_chance,
    mass_expected_by_chance,
    pointing_hit,
    region_coverage,
)
from medalign.teacher_cache.geometry.patch_grid import PatchGrid


def test_a_worked_example():
    """A 4 x 4 grid on a 32 x 16 image, so that the padded square leaves rows 0 and 3 empty.

    The region is the 12 x 8 pixels at (12, 0) of the image, which begin at (12, 8) of the square whose cells are
    8 x 8: the right half of cell (1, 1) and all of cell (1, 2).
    """
    inside = torch.zeros(16, 32)
    inside[0:8, 12:24] = 1
    coverage = region_coverage(inside, PatchGrid(4, 4))
    by_hand = [0, 0, 0, 0, 0, 0.5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert coverage.tolist() == by_hand
    attention = torch.tensor([0.0, 0, 0, 0, 0, 0.3, 0.2, 0, 0, 0.4, 0, 0, 0, 0, 0, 0.1])
    assert attention_mass_inside(attention, coverage).item() == pytest.approx(0.3 * 0.5 + 0.2)
    assert mass_expected_by_chance(coverage).item() == pytest.approx(1.5 / 16)
    assert pointing_hit(attention, coverage).item() == 0  # cell (2, 1) is below the region
    assert hits_expected_by_chance(coverage).item() == pytest.approx(2 / 16)
    assert energy_cells(attention).nonzero().flatten().tolist() == [5, 9]  # 0.4 + 0.3 reach half, 0.4 alone does not
    assert energy_iou(attention, coverage).item() == pytest.approx(0.5 / (2 + 1.5 - 0.5))
    # 8 of 16 cells at random share 0.75 on average: 0.75 / (9.5 - 0.75), a little more for the curvature.
    assert energy_iou_expected_by_chance(coverage).item() == pytest.approx(0.75 / 8.75, rel=0.05)


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
        kept, held = [], 0.0
        for place in sorted(range(len(row)), key=lambda place: -row[place]):
            if held < 0.5 * sum(row):
                kept.append(place)
                held += row[place]
        shared = sum(covered[place] for place in kept)
        iou = shared / (len(kept) + sum(covered) - shared)
        assert energy_iou(attention, coverage)[index].item() == pytest.approx(iou, abs=1e-6)
        chance = sum(c > 0 for c in covered) / len(covered)
        assert hits_expected_by_chance(coverage)[index].item() == pytest.approx(chance)
        area = sum(covered) / len(covered)
        assert mass_expected_by_chance(coverage)[index].item() == pytest.approx(area)


def test_batched_and_single_maps_agree():
    attention, coverage = random_maps(9)
    assert attention_mass_inside(attention[2], coverage[2]) == attention_mass_inside(attention, coverage)[2]
    assert pointing_hit(attention[2], coverage[2]) == pointing_hit(attention, coverage)[2]


def test_uniform_attention_gives_the_value_expected_by_chance():
    _, coverage = random_maps(4)
    uniform = torch.full_like(coverage, 0.01)
    torch.testing.assert_close(attention_mass_inside(uniform, coverage), mass_expected_by_chance(coverage))


@pytest.mark.parametrize(("patches", "covered"), [(64, 1), (64, 3), (64, 20), (64, 64), (25, 5), (576, 12)])
def test_the_chance_of_energy_iou_is_the_mean_over_random_orders(patches, covered):
    generator = torch.Generator().manual_seed(patches + covered)
    coverage = torch.zeros(patches)
    coverage[:covered] = 1 if covered == patches else torch.rand(covered, generator=generator)
    orders = torch.rand(20_000, patches, generator=generator).argsort(-1)[:, : math.ceil(patches / 2)]
    shared = coverage[orders].sum(-1)
    mean = (shared / (orders.shape[1] + coverage.sum() - shared)).mean().item()
    assert energy_iou_expected_by_chance(coverage).item() == pytest.approx(mean, rel=0.015)


def test_half_of_uniform_attention_is_half_of_the_cells():
    for patches in (1, 9, 64, 576):
        assert int(energy_cells(torch.full((patches,), 1 / patches)).sum()) == math.ceil(patches / 2)


def test_the_scale_of_attention_does_not_matter():
    attention, coverage = random_maps(5)
    torch.testing.assert_close(
        attention_mass_inside(attention * 7, coverage), attention_mass_inside(attention, coverage)
    )
    torch.testing.assert_close(energy_iou(attention * 7, coverage), energy_iou(attention, coverage))


def test_measures_of_an_empty_region_are_nan():
    attention, coverage = random_maps(6)
    nothing = torch.zeros_like(coverage)
    for measure in (
        attention_mass_inside(attention, nothing),
        pointing_hit(attention, nothing),
        mass_expected_by_chance(nothing),
        hits_expected_by_chance(nothing),
        energy_iou(attention, nothing),
        energy_iou_expected_by_chance(nothing),
    ):
        assert measure.isnan().all()


@pytest.mark.parametrize(("side", "grid"), [(12, PatchGrid(3, 4)), (10, PatchGrid(4, 3)), (5, PatchGrid(8, 8))])
def test_coverage_equals_counting_fine_samples(side, grid):
    mask = np.random.default_rng(side).random((side, side)) < 0.6
    coverage = region_coverage(torch.from_numpy(mask), grid).reshape(grid.rows, grid.columns)
    fine = math.lcm(side, grid.rows, grid.columns)
    large = np.kron(mask, np.ones((fine // side, fine // side)))
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


def test_agreement_ignores_scale_and_offset_and_detects_opposites():
    matrix = cosine_matrix(3)
    assert cosine_agreement(matrix, 0.2 * matrix + 0.5).item() == pytest.approx(1, abs=1e-6)
    assert cosine_agreement(matrix, -matrix).item() == pytest.approx(-1, abs=1e-6)
    assert cosine_agreement(matrix, torch.ones(9, 9)).isnan()


def test_no_attention_at_all_has_no_energy():
    _, coverage = random_maps(7)
    assert energy_iou(torch.zeros_like(coverage), coverage).isnan().all()

"""Scores per stage: the mean over classes and tasks, and resamples of whole images."""

import numpy as np
import pytest
from medalign.pipeline.inspection.probes.probe_tasks import ProbeFamily, ProbeTask, position_features
from medalign.pipeline.inspection.probes.stage_scores import probe_stages, resampled_images
from medalign.progress import Silent
from medalign.student.inspection.token_capture import StageTokens
from medalign.teacher_cache.geometry.patch_grid import PatchGrid

GRID = PatchGrid(4, 4)
IMAGES, CHOSEN = 24, 6


def stage(name, tokens):
    pooled = np.concatenate([tokens.mean(1), tokens.std(1)], axis=1)
    return StageTokens(name=name, tokens=tokens, pooled=pooled, agreement=np.full(len(tokens), np.nan))


@pytest.fixture
def regions():
    """Names by position in three quarters of the cases, and tokens that know the name, or nothing."""
    random = np.random.default_rng(0)
    chosen = np.stack([random.permutation(16)[:CHOSEN] for _ in range(IMAGES)])
    labels = np.where(random.random(chosen.shape) < 0.75, chosen // 8, random.integers(2, size=chosen.shape))
    task = ProbeTask(
        name="regions", classes=("up", "down"), images=np.repeat(range(IMAGES), CHOSEN), labels=labels.ravel(),
        cells=np.tile(range(CHOSEN), IMAGES),
    )  # fmt: skip
    noise = random.normal(size=(IMAGES, CHOSEN, 5))
    stages = [stage("pixels", noise), stage("tower", noise + 4 * labels[..., None])]
    return ProbeFamily(name="regions", tasks=(task,), floor="position alone"), stages, chosen


def test_every_probe_gets_the_position(regions):
    family, stages, chosen = regions
    found = probe_stages(family, stages, chosen, GRID, seed=0, progress=Silent())
    noise, names = found.values()
    assert names == 1
    assert 0.7 < found.floor() < 0.95
    assert noise == pytest.approx(found.floor(), abs=0.1)
    assert found.images == IMAGES


def test_scores_are_means_over_classes_and_their_resamples_are_of_images(regions):
    family, stages, chosen = regions
    found = probe_stages(family, stages, chosen, GRID, seed=0, progress=Silent())
    hits, examples = found.correct[0].sum(axis=0), found.examples.sum(axis=0)
    assert found.values()[0] == pytest.approx((hits / examples).mean())
    assert found.result(0).value == pytest.approx(found.values()[0])
    drawn, floor = found.resampled(seed=3)
    times = resampled_images(IMAGES, seed=3)
    assert (times.sum(axis=1) == IMAGES).all()
    rows = np.repeat(np.arange(IMAGES), times[7].astype(int))
    again = found.correct[0][rows].sum(axis=0) / found.examples[rows].sum(axis=0)
    assert drawn[7, 0] == pytest.approx(again.mean())
    assert floor.mean() == pytest.approx(found.floor(), abs=0.02)


def test_known_stages_are_copied(regions):
    family, stages, chosen = regions
    known = probe_stages(family, stages, chosen, GRID, seed=0, progress=Silent())
    other = [stages[0], stage("tower", np.zeros((IMAGES, CHOSEN, 5)))]
    found = probe_stages(family, other, chosen, GRID, seed=0, progress=Silent(), known=known, same={"pixels"})
    assert (found.correct[0] == known.correct[0]).all()
    assert (found.correct[1] == found.floor_correct).all()  # constant tokens leave the position


def test_answers_are_read_from_whole_images_and_compared_with_chance():
    random = np.random.default_rng(1)
    tasks = [
        ProbeTask(name=name, classes=classes, images=np.arange(IMAGES), labels=labels, cells=None)
        for name, classes, labels in (
            ("Is it?", ("no", "yes"), np.arange(IMAGES) % 2),
            ("How many?", ("1", "2", "3"), np.arange(IMAGES) % 3),
        )
    ]
    family = ProbeFamily(name="answers", tasks=tuple(tasks), floor="chance")
    tokens = random.normal(size=(IMAGES, CHOSEN, 3)) + 9 * (np.arange(IMAGES) % 2)[:, None, None]
    found = probe_stages(
        family, [stage("tower", tokens)], np.zeros((IMAGES, CHOSEN), int), GRID, seed=0, progress=Silent()
    )
    assert found.floor() == pytest.approx((1 / 2 + 1 / 3) / 2)
    hits = found.correct[0].sum(axis=0) / found.examples.sum(axis=0)
    assert hits[:2].mean() == 1
    assert found.values()[0] == pytest.approx((1 + hits[2:].mean()) / 2)


def test_position_features_tell_places_apart_and_are_smooth():
    grid = PatchGrid(12, 12)
    features = position_features(np.arange(144), grid)
    distances = np.square(features[:, None] - features[None]).sum(axis=2)
    assert (distances[~np.eye(144, dtype=bool)] > 0.1).all()
    beside, far = 66 + 1, 66 + 5
    assert distances[66, beside] < distances[66, far] / 2

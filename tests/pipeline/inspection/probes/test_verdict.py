"""The verdict's rules on curves that are made up."""

from types import SimpleNamespace

import numpy as np
import pytest
from medalign.pipeline.evaluation.statistics import Difference
from medalign.pipeline.inspection.inspection_page import _lead, _state
from medalign.pipeline.inspection.number_text import change_text, percent, percent_interval
from medalign.pipeline.inspection.probes.lost_shares import lost_places, stage_losses
from medalign.pipeline.inspection.probes.probe_figures import verdict_table
from medalign.pipeline.inspection.probes.probe_tasks import ProbeFamily, ProbeTask
from medalign.pipeline.inspection.probes.stage_scores import StageScores
from medalign.pipeline.inspection.probes.verdict import judge
from medalign.pipeline.reports.runs.wording import points, span
from medalign.plain_text import signed_text

STAGES = ("pixels", "teacher", "tower", "projector", "layer 1", "layer 2", "layer 3")
EACH = 20


def scores(curve, images=60, floor=0.5, stages=STAGES):
    """Two classes per image; a probe is right about a share of each image's examples that has the given mean."""
    random = np.random.default_rng(0)
    labels = np.tile([0, 1], images)
    task = ProbeTask(
        name="regions", classes=("a", "b"), images=np.repeat(range(images), 2), labels=labels, cells=labels
    )
    return StageScores(
        family=ProbeFamily(name="regions", tasks=(task,), floor="position alone"),
        stages=stages,
        correct=np.stack([random.binomial(EACH, share, (images, 2)) for share in curve]).astype(float),
        floor_correct=random.binomial(EACH, floor, (images, 2)).astype(float),
        examples=np.full((images, 2), float(EACH)),
        task_of=np.zeros(2, dtype=int),
        images=images,
    )


@pytest.mark.parametrize(
    ("curve", "kind", "place"),
    [
        ((0.8, 0.9, 0.9, 0.88, 0.9, 0.89, 0.9), "none", None),
        ((0.8, 0.9, 0.7, 0.7, 0.7, 0.7, 0.7), "lost", "tower"),  # below the teacher
        ((0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7), "lost", "tower"),  # below the pixels
        ((0.6, 0.6, 0.9, 0.9, 0.9, 0.9, 0.9), "none", None),  # a tower reads more than pixels
        ((0.8, 0.9, 0.9, 0.7, 0.72, 0.7, 0.7), "lost", "projector"),
        ((0.8, 0.9, 0.9, 0.6, 0.88, 0.9, 0.9), "none", None),  # a later layer reads it back
        ((0.8, 0.9, 0.9, 0.9, 0.9, 0.6, 0.65), "lost", "layer 1"),  # between the inputs of layers 1 and 2
        ((0.8, 0.9, 0.9, 0.87, 0.84, 0.85, 0.85), "none", None),  # below the margin
        ((0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5), "unreadable", None),
    ],
)
def test_the_place_of_the_loss_is_named(curve, kind, place):
    found = judge(scores(curve), seed=0)
    assert (found.kind, found.place) == (kind, place)
    assert kind == "unreadable" or found.named > 0.95
    if place == "layer 1":
        assert "lost at layer 1. A linear probe reads 0.90 at the input of layer 1" in found.sentence
    if place == "tower":
        assert "lost at the tower" in found.sentence


def test_few_images_name_nothing_though_the_drop_is_large():
    curve = (0.8, 0.9, 0.9, 0.75, 0.75, 0.75, 0.75)
    assert judge(scores(curve, images=60), seed=0).place == "projector"
    few = scores(curve, images=60)
    noisy = judge(
        StageScores(
            family=few.family, stages=few.stages, correct=few.correct / EACH, floor_correct=few.floor_correct / EACH,
            examples=np.concatenate([few.examples[:4] / EACH, np.zeros((56, 2))]), task_of=few.task_of, images=4,
        ),
        seed=0,
    )  # fmt: skip
    assert noisy.place is None


def test_shares_are_of_what_was_readable_beyond_the_floor():
    values = np.array([0.9, 0.8, 0.6, 0.7])
    losses = stage_losses(
        ("pixels", "tower", "projector", "layer 1"), values, 0.5, np.tile(values, (50, 1)), np.full(50, 0.5)
    )
    assert [loss.place for loss in losses] == ["tower", "projector", "layer 0"]
    assert [loss.share for loss in losses] == pytest.approx([0.1 / 0.4, 0.1 / 0.3, -0.1 / 0.1])
    assert [(loss.before, loss.best_after) for loss in losses] == [
        ("pixels", "tower"), ("tower", "layer 1"), ("projector", "layer 1"),
    ]  # fmt: skip
    assert [loss.counts for loss in losses] == [False, True, False]


def test_two_losses_are_both_told_the_larger_first():
    found = judge(scores((0.8, 0.95, 0.8, 0.8, 0.8, 0.6, 0.6)), seed=0)
    assert found.place == "layer 1"
    assert "lost at layer 1 and, less, at the tower" in found.sentence


def test_without_sources_the_tower_cannot_be_judged():
    found = judge(scores((0.7, 0.7, 0.9), stages=("tower", "projector", "layer 1")), seed=0)
    assert [loss.place for loss in found.losses] == ["projector", "layer 0"]


NONE_THOUGH_MOST_NAME_A_STAGE = scores((0.8, 0.9, 0.9, 0.79, 0.79, 0.7, 0.7), images=20)
SEVERAL_STAGES = scores((0.9, 0.9, 0.77, 0.68, 0.68, 0.62, 0.62), images=8)
FIRM = scores((0.8, 0.9, 0.9, 0.7, 0.72, 0.7, 0.7))


@pytest.mark.parametrize("found", [NONE_THOUGH_MOST_NAME_A_STAGE, SEVERAL_STAGES, FIRM])
def test_the_sentence_is_as_sure_as_the_resamples(found):
    verdict = judge(found, seed=0)
    places = lost_places(found.stages, *found.resampled(0))
    counts = {place or "none": sum(other == place for other in places) / len(places) for place in set(places)}
    assert verdict.outcomes == pytest.approx(counts)
    assert verdict.named == pytest.approx(counts.get(verdict.place or "none", 0))
    assert verdict.uncertain == verdict.record()["uncertain"] == (verdict.named < 0.5)
    assert verdict.sentence.startswith("Uncertain: ") == verdict.uncertain
    assert "surely" not in verdict.sentence
    assert verdict.uncertain == (found is not FIRM)
    if verdict.uncertain:
        assert verdict.place in (None, "tower")
        others = {place: share for place, share in counts.items() if place not in (verdict.place, "none")}
        assert f"but only {100 * verdict.named:.0f} % of resamples of the images agree; " in verdict.sentence
        assert f"{100 * sum(others.values()):.0f} % name " in verdict.sentence


def test_every_arm_is_uncertain_by_its_own_resamples():
    arms = {"base": FIRM, "lora": NONE_THOUGH_MOST_NAME_A_STAGE}
    verdicts = {(arm, "regions"): judge(found, seed=0) for arm, found in arms.items()}
    lora = verdicts["lora", "regions"]
    assert (lora.kind, lora.uncertain, verdicts["base", "regions"].uncertain) == ("none", True, False)
    tokens = SimpleNamespace(families=[SimpleNamespace(name="regions")], verdicts=verdicts)
    lead = _lead([SimpleNamespace(name=arm) for arm in arms], tokens, ())
    assert lead.startswith("Information about regions is lost at the projector.")
    assert "Uncertain: with lora, no stage passes the test, but only " in lead
    assert "no loss found" not in lead
    assert [row[2] for row in verdict_table(verdicts).rows] == ["lost at the projector", "uncertain"]
    assert _state(tokens) == "bad"
    del verdicts["base", "regions"]
    assert _state(tokens) == "neutral"  # not good: most resamples name a stage


def test_a_change_that_rounds_to_zero_has_no_sign():
    nothing = Difference(mean=-0.0001, low=-0.002, high=-0.0004)
    assert change_text(nothing) == "0.000 [-0.002, 0.000]"
    assert (percent(-0.001), percent_interval(-0.0, -0.2, 0.001)) == ("0 %", "0 % [-20 %, 0 %]")
    assert (points(-0.0001), span(-0.0001, 0.5)) == ("0.0 points", "0.0 to 50.0")
    assert [signed_text(value, 1) for value in (-10.0, 0.04, 100.0)] == ["-10.0", "0.0", "+100.0"]

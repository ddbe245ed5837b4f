"""Annotated regions as targets of L_att, from a manifest's boxes and masks to the loss, against plain loops."""

import functools
import json
import math
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from labs import lab_settings, make_lab
from medalign.errors import InputError, SettingsError
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.data.regions import REGIONS
from medalign.pipeline.data.samples import answered_samples
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.region_targets import read_region_targets
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.settings_loading import settings_of
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import ADAPTER_RECORD
from medalign.student.inputs.collation import AlignmentCollator
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook

SIZES = [(24, 24), (30, 20)]
"""Of images with even and odd numbers, as in `make_lab`."""
LEFT, TOP = [2.0, 3.0, 9.0, 14.0], [0.0, 0.0, 30.0, 7.0]


def region(name, mask=None, value=None, box=None):
    return {"name": name, "mask": mask, "value": value, "box": box}


REGIONS_OF = {
    "1": [region("noise", box=LEFT), region("other", box=TOP)],  # its answer names the first
    "2": [region("lesion", mask="mask.png", value=2)],
    "5": [region("a", box=LEFT), region("b", box=TOP)],  # named by nothing: both
    "19": [region("a", box=TOP)],
}
"""Regions of questions; 19 is not in the training split."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = make_lab(tmp_path_factory.mktemp("lab"))
    write_regions(folder, REGIONS_OF)
    values = np.zeros((24, 24), dtype=np.uint8)
    values[4:13, 10:22], values[20:, :] = 2, 1
    Image.fromarray(values).save(folder / "images" / "mask.png")
    return folder


def write_regions(folder, regions, name="manifest.parquet"):
    whole = Manifest.read(folder / "manifest.parquet")
    ids = whole.frame["question_id"].to_list()
    frame = whole.frame.with_columns(
        pl.Series("width", [SIZES[int(i) % 2][0] for i in ids], dtype=pl.Int32),
        pl.Series("height", [SIZES[int(i) % 2][1] for i in ids], dtype=pl.Int32),
        pl.Series("regions", [regions.get(i, []) for i in ids], dtype=REGIONS),
    )
    Manifest(frame, whole.root, "regions").write(folder / name)


def settings_with(lab, targets, manifest="manifest.parquet", **training) -> Settings:
    settings = lab_settings(lab, **{"max_steps": 1} | training)
    settings["alignment"] |= {"attention_targets": targets}
    settings["lora"]["lora_dropout"] = 0.0
    settings["data"]["manifest"] = str(lab / manifest)
    if targets == "regions":
        settings["alignment"]["alpha"] = 0.0
        settings["data"]["store"] = None
    return Settings.model_validate(settings)


def slow_map(question):
    """Share of each of 3 x 3 cells, pixel by pixel on the padded square; every pixel is in one cell."""
    width, height = SIZES[int(question) % 2]
    side = max(width, height)
    cells = [0.0] * 9
    for y in range(height):
        for x in range(width):
            inside = {
                "1": 2 <= x < 11 and 3 <= y < 17,
                "2": 10 <= x < 22 and 4 <= y < 13,
                "5": (2 <= x < 11 and 3 <= y < 17) or y < 7,
                "19": y < 7,
            }.get(question, False)
            row, column = (y + (side - height) // 2) * 3 // side, (x + (side - width) // 2) * 3 // side
            cells[row * 3 + column] += inside / (side / 3) ** 2
    return cells


def slow_loss(M_a, cells, E_a):
    """KL(t || p) of an image; None without a target."""
    p = [value / sum(M_a) for value in M_a]
    t = [value / sum(cells) for value in cells] if any(cells) else None
    if E_a is not None:
        e = [value / sum(E_a) for value in E_a]
        t = e if t is None else [(a + b) / 2 for a, b in zip(t, e, strict=True)]
    if t is None:
        return None
    return sum(b * math.log(b / a) for a, b in zip(p, t, strict=True) if b)


def slow_losses(plan):
    """The loss of every training image, from the student's own attention maps."""
    batch = AlignmentCollator.of(plan.student)(plan.train.__getitems__(range(len(plan.samples))))
    with torch.no_grad():
        output = plan.student.model.eval()(**batch)
    asked = [sample.question_id for sample in plan.samples if sample.images]
    found = []
    for image, question in enumerate(asked):
        E_a = batch["E_a"][image].tolist() if "E_a" in batch else None
        found.append(slow_loss(output.layers[0].attention[image].tolist(), slow_map(question), E_a))
    return batch, output, found


@pytest.fixture(scope="module")
def plan_of(lab):
    """The plan with some targets, made once."""
    return functools.cache(lambda targets: plan_training(settings_with(lab, targets)))


@pytest.fixture(scope="module")
def run_of(lab):
    """Train one step with region targets; the log and the gradients."""

    def run(out, batch, accumulation):
        gradients, shape = [], {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}

        def keep(optimizer, args, kwargs):
            gradients.extend(p.grad.clone() for group in optimizer.param_groups for p in group["params"])

        handle = register_optimizer_step_pre_hook(keep)
        try:
            run_training(settings_with(lab, "regions", max_grad_norm=None, **shape), out, Silent())
        finally:
            handle.remove()
        return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()], gradients

    return run


@pytest.fixture(scope="module")
def whole_step(run_of, tmp_path_factory):
    """A run whose step is one batch: its folder, log and gradients."""
    out = tmp_path_factory.mktemp("run") / "18x1"
    return out, *run_of(out, 18, 1)


@pytest.mark.parametrize("targets", ["regions", "both"])
def test_targets_and_losses_equal_those_of_a_slow_loop(plan_of, targets):
    plan = plan_of(targets)
    batch, output, slow = slow_losses(plan)
    with_regions = [sample.question_id in REGIONS_OF for sample in plan.samples if sample.images]
    expected = [slow_map(sample.question_id) for sample in plan.samples if sample.images]
    torch.testing.assert_close(batch["regions"], torch.tensor(expected), atol=1e-6, rtol=0)
    torch.testing.assert_close(output.loss_att, torch.tensor([value or 0.0 for value in slow]), atol=1e-6, rtol=0)
    summary = plan.summary()
    assert summary["region_targets"].startswith("3 of 13 images (1 by regions")
    counts = (summary["images_without_target"], batch["layout"].counts[2])
    assert counts == ((10, 3) if targets == "regions" else (None, 13))
    if targets == "regions":
        assert output.has_target.tolist() == with_regions
        assert summary["store"] is None
        assert "E_a" not in batch


def test_a_step_is_the_mean_over_images_with_a_target_however_it_is_split(plan_of, run_of, whole_step, tmp_path):
    """18 samples at once, and in 6 batches, of which some have no target."""
    slow = [value for value in slow_losses(plan_of("regions"))[2] if value is not None]
    _, *whole = whole_step
    split = run_of(tmp_path / "3x6", 3, 6)
    for logged, _ in (whole, split):
        assert logged[0]["loss_att"] == pytest.approx(sum(slow) / len(slow), abs=1e-6)
        assert "loss_vis" not in logged[0]
    for one, other in zip(whole[1], split[1], strict=True):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-4)


def test_other_regions_are_another_run(lab, whole_step, tmp_path):
    out, shape = tmp_path / "run", {"per_device_train_batch_size": 18, "gradient_accumulation_steps": 1}
    shutil.copytree(whole_step[0], out)
    (out / ADAPTER_RECORD).unlink()  # as if killed after its checkpoint
    write_regions(lab, REGIONS_OF | {"5": [region("a", box=TOP)]}, "moved.parquet")
    moved, same = (
        settings_with(lab, "regions", manifest, max_grad_norm=None, **shape)
        for manifest in ("moved.parquet", "manifest.parquet")
    )
    with pytest.raises(InputError, match="the training questions"):
        run_training(moved, out, Silent(), resume=True)
    run_training(same, out, Silent(), resume=True)


def test_what_cannot_be_supervised_is_refused_before_training(lab):
    write_regions(lab, {"19": REGIONS_OF["19"]}, "none.parquet")
    write_regions(lab, {"2": [region("lesion", mask="lost.png")]}, "lost.parquet")
    with pytest.raises(InputError, match=r"no image of split 'train' .* has annotated regions"):
        plan_training(settings_with(lab, "regions", "none.parquet"))
    with pytest.raises(InputError, match=r"lost\.png"):
        plan_training(settings_with(lab, "regions", "lost.parquet"))
    values = lab_settings(lab)
    values["alignment"] |= {"attention_targets": "both", "preset": "released"}
    with pytest.raises(SettingsError, match="attention_targets is 'both' with geometry 'crop'"):
        settings_of(values)


@pytest.mark.parametrize(
    ("regions", "problem"),
    [
        ([region("a", mask="big.png")], r"big\.png has 48x48 pixels, but its image has 24x24"),
        ([region("a", mask="empty.png")], "cover no pixel of their image"),
        ([region("a", mask="mask.png", value=9)], "cover no pixel of their image"),
        ([region("a", box=[100.0, 100.0, 5.0, 5.0])], "cover no pixel of their image"),
        ([region("noise", mask="empty.png"), region("a", box=LEFT)], r"2 \(noise\)"),  # what the answer names is empty
    ],
)
def test_regions_that_show_nothing_are_refused(lab, regions, problem):
    with pytest.raises(InputError, match=problem):
        targets_of(lab, regions)


@pytest.mark.parametrize(
    ("regions", "pixels"),
    [
        ([region("a", mask="empty.png"), region("b", box=LEFT)], 9 * 14),
        ([region("a", mask="mask.png", value=2), region("b", mask="mask.png", value=1)], 9 * 12 + 4 * 24),
        ([region("a", box=[20.0, 20.0, 50.0, 50.0])], 16),
        ([region("a", box=[-4.0, -4.0, 6.0, 6.0])], 4),
    ],
)
def test_regions_are_joined_and_cut_at_the_border(lab, regions, pixels):
    (cells,) = targets_of(lab, regions).maps.maps
    assert float(cells.sum()) == pytest.approx(pixels / 8**2)


def targets_of(lab, regions):
    """The targets of question 2, whose image has 24 x 24 pixels, on a grid of 3 x 3."""
    Image.fromarray(np.ones((48, 48), dtype=np.uint8)).save(lab / "images" / "big.png")
    Image.fromarray(np.zeros((24, 24), dtype=np.uint8)).save(lab / "images" / "empty.png")
    write_regions(lab, {"2": regions}, "odd.parquet")
    split = Manifest.read(lab / "odd.parquet").split("train")
    settings = settings_with(lab, "regions", "odd.parquet")
    return read_region_targets(settings, [split], answered_samples(split), PatchGrid(3, 3))

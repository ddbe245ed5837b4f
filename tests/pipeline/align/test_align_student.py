"""`student align` from settings to adapter: a killed run resumes to the bit, and the adapter is like any other."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from align_labs import align_settings, align_values, make_align_lab
from labs import write_config
from medalign.errors import InputError, SettingsError, StoreError
from medalign.pipeline.align.align_plan import plan_align
from medalign.pipeline.align.align_settings import load_align_settings
from medalign.pipeline.align.align_student import check_align_out, run_align
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.inspection.student_changes import measure_changes
from medalign.pipeline.model_folders import export_student
from medalign.pipeline.reports.runs.run_report import write_run_report
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import read_adapter_record
from medalign.student.loading.student_loading import load_student, open_student
from medalign.student.translation.translation import load_translation
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from safetensors.torch import load_file
from stores import write_store

ROOT = Path(__file__).parents[3]


def curve(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    names = ("step", "loss", "loss_translation", "loss_keep", "grad_norm", "learning_rate")
    return [{name: line[name] for name in names if name in line} for line in lines if "train_runtime" not in line]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = make_align_lab(tmp_path_factory.mktemp("lab"))
    values = align_values(folder)
    values |= {"trainable": {"projector": "full"}, "report": {"images": 8, "max_new_tokens": 2}}
    write_config(folder / "align.yaml", values)
    return folder


@pytest.fixture(scope="module")
def whole(lab):
    settings = load_align_settings(lab / "align.yaml", None, resume=False)
    run_align(settings, lab / "whole", Silent(), measure=measure_changes)
    return lab / "whole"


def test_after_kill_9_a_resumed_run_is_bitwise_the_uninterrupted_one(lab, whole, forks):
    out = lab / "killed"
    (done,) = forks.run(ROOT / "tests" / "killed_align.py", lab / "align.yaml", out, "5")
    assert done.stdout.endswith("killed\n"), done.stderr
    report = run_align(load_align_settings(None, out, resume=True), out, Silent(), resume=True)
    assert report.result.training.resumed_from == 4
    assert curve(out) == curve(whole)
    for name in ("adapter_model.safetensors", "projector.safetensors"):
        ours, theirs = load_file(out / name), load_file(whole / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    before = json.loads((whole / "align-summary.json").read_text())["result"]
    assert (report.result.target_r2, report.result.anchors_moved) == (before["target_r2"], before["anchors_moved"])


def test_the_adapter_has_a_record_and_no_other_weights(lab, whole):
    record = read_adapter_record(whole)
    assert record.trained == {"vision_tower": "lora", "projector": "full"}
    assert record.data_use == "public"
    assert record.settings["translation"]["keep"] == 0.3
    assert record.store["teacher"] == "random"
    assert {path.name for path in (whole / "translation").iterdir()} == {"translation.safetensors"}
    _, facts = load_translation(whole / "translation" / "translation.safetensors")
    assert (facts.fitted, facts.held_out) == (9, 2)
    again = run_align(load_align_settings(None, whole, resume=True), whole, Silent(), resume=True)
    assert again.was_finished
    assert again.summary()["target_r2_after"] is not None
    assert [(one.images, one.questions) for one in again.measured.answers] == [("targets", 2), ("anchors", 2)]


def test_a_finished_run_has_a_page_with_both_curves(lab, whole):
    path = write_run_report(whole, Silent())
    text, table = path.read_text(), pl.read_parquet(whole / "figures" / "losses.parquet")
    assert set(table["panel"]) >= {"targets to their translations (loss_translation)", "total loss"}
    assert "Answers about held-out anchors: " in text
    assert "translation.minimum_r2" in text
    assert "skill: share of what random features leave that the teacher explains" in text
    path.unlink()


def test_missing_and_truncated_files_of_a_finished_run_are_refused_and_restored(lab, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    settings = load_align_settings(lab / "align.yaml", None, resume=False)
    weights = (out / "projector.safetensors").read_bytes()
    (out / "projector.safetensors").write_bytes(weights[:-8])
    with pytest.raises(InputError, match=r"projector\.safetensors is damaged: delete .*align-summary\.json"):
        run_align(settings, out, Silent(), resume=True)
    (out / "projector.safetensors").unlink()
    with pytest.raises(InputError, match=r"projector\.safetensors is missing: delete .*to restore the adapter"):
        run_align(settings, out, Silent(), resume=True)
    (out / "align-summary.json").unlink()
    assert run_align(settings, out, Silent(), resume=True).result.training.resumed_from == 6
    assert (out / "projector.safetensors").read_bytes() == weights
    values = [json.loads((folder / "align-summary.json").read_text())["result"] for folder in (out, whole)]
    assert values[0]["anchors_moved"] == values[1]["anchors_moved"]


def test_the_result_loads_and_exports_and_the_export_can_be_aligned_again(lab, whole, tmp_path):
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base = open_student(lab / "student", layers=(), rotation="none").model.image_tokens(pixels)
        aligned = load_student(whole).model.image_tokens(pixels)
        assert (aligned - base).abs().max() > 1e-3
        export_student(whole, tmp_path / "model", base=None, dtype=None, evaluations=(), progress=Silent())
        exported = load_student(tmp_path / "model").model.image_tokens(pixels)
    torch.testing.assert_close(exported, aligned, atol=1e-5, rtol=1e-5)
    plan = plan_align(align_settings(align_values(lab), student__path=str(tmp_path / "model")))
    assert plan.data_use == "public"


def test_the_loss_falls_and_anchors_move_less_with_keep(lab):
    results = {}
    for keep in (0.0, 10.0):
        out = lab / f"keep-{keep}"
        values = align_values(lab, steps=20, save_steps=20, learning_rate=3e-3)
        values["trainable"] = {"vision_tower": "full"}
        results[keep] = run_align(align_settings(values, translation__keep=keep), out, Silent()).result
    assert results[0.0].target_r2 > results[0.0].translation.target_r2
    assert results[10.0].anchors_moved < 0.7 * results[0.0].anchors_moved


def test_a_translation_that_explains_too_little_is_refused_before_training(lab):
    settings = align_settings(align_values(lab), translation__minimum_r2=0.5)
    with pytest.raises(InputError, match=r"was not trained: the translation explains -0\.\d+ .* mean token"):
        run_align(settings, lab / "refused", Silent())
    assert not (lab / "refused" / "medalign.json").exists()
    assert not (lab / "refused" / "translation" / "anchor-tokens.bin").exists()
    report = run_align(
        align_settings(align_values(lab, steps=1), translation__minimum_r2=0.5, translation__control="random-teacher"),
        lab / "refused",
        Silent(),
    )
    assert report.summary()["control"] == "random-teacher"


def test_a_teacher_that_hardly_beats_random_features_is_refused_before_training(lab):
    settings = align_settings(align_values(lab), translation__minimum_skill=0.3)
    text = r"Random features of the pixels explain -?\d\.\d+; the teacher explains .* translation\.minimum_skill 0\.3\."
    with pytest.raises(InputError, match=text):
        run_align(settings, lab / "no-skill", Silent())
    assert not (lab / "no-skill" / "medalign.json").exists()
    assert not (lab / "no-skill" / "translation" / "anchor-tokens.bin").exists()


def test_both_limits_are_named_if_both_are_missed(lab):
    settings = align_settings(align_values(lab), translation__minimum_r2=0.5, translation__minimum_skill=0.3)
    with pytest.raises(InputError, match=r"or lower translation\.minimum_r2 and translation\.minimum_skill$"):
        run_align(settings, lab / "neither", Silent())


def test_a_teacher_at_the_limit_trains(lab, whole):
    _, facts = load_translation(whole / "translation" / "translation.safetensors")
    values = align_values(lab, steps=1)
    report = run_align(align_settings(values, translation__minimum_skill=facts.skill), lab / "limit", Silent())
    assert report.summary()["translation_skill"] == facts.skill
    with pytest.raises(InputError, match=r"less than translation\.minimum_skill"):
        run_align(align_settings(values, translation__minimum_skill=facts.skill + 1e-6), lab / "above", Silent())


def test_random_features_are_those_of_the_control(lab, whole):
    values = align_values(lab, steps=1)
    control = run_align(align_settings(values, translation__control="random-teacher"), lab / "control", Silent())
    _, facts = load_translation(whole / "translation" / "translation.safetensors")
    summary = control.summary()
    assert facts.r2_random == summary["translation_r2"] == summary["translation_r2_of_random_features"]
    assert summary["translation_skill"] == 0.0


def test_settings_that_would_change_the_result_are_refused_on_resume(lab, whole):
    with pytest.raises(InputError, match=r"translation\.keep: 0\.3 before, 1\.0 now"):
        run_align(
            load_align_settings(None, whole, {"translation.keep": 1.0}, resume=True), whole, Silent(), resume=True
        )
    with pytest.raises(InputError, match="finished run; pass another --out"):
        check_align_out(whole, resume=False)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"data.targets_split": None}, InputError, "11 of 16 target images are anchors too"),
        ({"data.held_out": 0.9}, InputError, "at least 4 are needed"),
        (
            {"training.targets_per_step": 3, "training.gradient_accumulation_steps": 2},
            SettingsError,
            "= 5 images cannot",
        ),
        ({"data.geometry": "crop"}, StoreError, "or set data.geometry"),
        ({"data.teacher": "other"}, StoreError, "data.teacher is 'other'"),
        ({"student.dtype": "float16"}, SettingsError, "cannot be trained on the CPU"),
    ],
)
def test_what_cannot_work_is_refused_by_name(lab, overrides, error, message):
    with pytest.raises(error, match=message):
        plan_align(load_align_settings(align_values(lab), None, overrides, resume=False))


def test_a_gram_store_and_a_store_without_an_image_are_refused(lab):
    hashes = [row["image_hash"] for row in Manifest.read(lab / "images.parquet").images().iter_rows(named=True)]
    write_store(lab / "gram.zarr", range(16), hashes=hashes, grid=PatchGrid(3, 3), profile="gram16")
    with pytest.raises(StoreError, match=r"profile gram16.*--profile float16, native or int8"):
        plan_align(align_settings(align_values(lab), data__store=str(lab / "gram.zarr")))
    write_store(lab / "less.zarr", range(15), hashes=hashes[:15], grid=PatchGrid(3, 3))
    with pytest.raises(StoreError, match="1 of 16 images have no row"):
        plan_align(align_settings(align_values(lab), data__store=str(lab / "less.zarr")))


def test_all_wrong_settings_are_reported_at_once(lab):
    values = align_values(lab) | {"translation": {"ridge": 0, "kep": 1}}
    values["trainable"] = {"vision_tower": "none"}
    with pytest.raises(SettingsError, match=r"(?s)3 problems.*translation\.ridge.*did you mean.*vision_tower"):
        align_settings(values)
    with pytest.raises(SettingsError, match="CONFIG is missing"):
        load_align_settings(None, None, resume=False)


def test_the_shipped_config_is_complete():
    settings = load_align_settings(ROOT / "configs" / "alignment" / "phantoms.yaml", None, resume=False)
    assert settings.trainable.vision_tower == "full"


def test_a_run_can_start_from_an_aligned_student(lab, whole):
    student = plan_align(align_settings(align_values(lab), student__path=str(whole))).student
    assert student.start.trained == {"vision_tower": "lora", "projector": "full"}
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(student.model.image_tokens(pixels), load_student(whole).model.image_tokens(pixels))

"""Specifications: what is refused, with every problem; the shipped ones are planned at the sizes of a 7B student."""

import json
from pathlib import Path

import polars as pl
import pytest
from align_labs import make_align_lab
from labs import hashes_of
from medalign.errors import SettingsError
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.studies.study_plan import plan_study
from medalign.pipeline.studies.study_spec import load_study, study_of
from medalign.pipeline.studies.units.arm_settings import check_arm_settings
from medalign.pipeline.training.gpu_memory import parse_card
from medalign.progress import Silent
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from pretended.sparse import write_sparse
from stores import write_store
from study_labs import study_values, with_trials

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "configs" / "study").glob("*.yaml"))


SWEEPS = {f"phantoms-{swept}" for swept in ("anchors", "bytes", "keep", "layers", "settings", "variants")}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_specifications_have_valid_settings(path):
    spec = load_study(path)
    check_arm_settings(spec)
    assert path.name.startswith("figure") or len(spec.seeds) == (4 if path.stem in SWEEPS else 8)
    assert path.stem != "phantoms" or {len(arm.trials) for arm in spec.arms if not arm.is_base} == {3}


def test_figures_of_the_paper_are_planned_at_7b(tmp_path, monkeypatch):
    """The published width by the real loading path, with one decoder layer and weights as holes in a sparse file."""
    lab = make_align_lab(tmp_path / "lab")
    monkeypatch.chdir(tmp_path)
    write_sparse(tmp_path / "students/huatuogpt-vision-7b", "llava-med", layers=1)  # fewer rows of embeddings
    manifest = Manifest.read(lab / "manifest.parquet")
    rows = manifest.frame.filter(manifest.frame["image"].is_not_null())
    splits = (["train"] * 3 + ["validation", "test"])[: rows.height]
    frame = rows.head(5).with_columns(split=pl.Series(splits), answer_type=pl.lit("open"))
    Manifest(frame, manifest.root, "slake").write(tmp_path / "manifests/slake.parquet")
    hashes = hashes_of([manifest.path_of(image) for image in frame["image"]])
    write_store(tmp_path / "stores/slake-unimed-l14.zarr", range(5), hashes=hashes, grid=PatchGrid(24, 24))
    text = (ROOT / "configs/study/figure-4a.yaml").read_text()
    assert "layer: 16" in text
    Path("spec.yaml").write_text(text.replace("layer: 16", "layer: 0").replace("huatuo_v1", "vicuna_v1"))
    spec = load_study(Path("spec.yaml"))
    spec = spec.model_copy(update={"arms": (spec.arms[0], spec.arms[3])})
    plan = plan_study(spec, None, parse_card("80GB"), "cpu", Silent())
    summary = plan.summary()
    assert summary["final_runs"] == 6
    assert summary["units"] == {"train": "0 of 6 finished", "answer": "0 of 6 finished"}
    assert len(summary["gpu_memory"]) == 2
    by_stage = {stage.stage: stage for stage in plan.memory}
    rotation = 4 * 4096**2
    assert by_stage["SLAKE, MEDALIGN: train"].trained - by_stage["SLAKE, LoRA: train"].trained == rotation
    assert summary["hours_left_of_one_process"] is None


def test_every_problem_of_a_specification_is_named():
    values = with_trials(study_values(Path("lab")))
    values["baseline"] = "Lora"
    values["metrics"] = ["open"]
    values["arms"][1]["trials"] = values["arms"][1]["trials"][:1]
    values["comparisons"] = [{"arm": "LoRA", "against": "nobody", "regime": "elsewhere"}]
    values["regimes"][0]["train"]["labels"] = 0
    with pytest.raises(SettingsError) as caught:
        study_of(values)
    said = str(caught.value)
    for part in (
        "baseline: there is no arm 'Lora'; the arms are base, LoRA, align + MEDALIGN",
        "comparisons: there is no arm 'nobody'",
        "comparisons: there is no regime 'elsewhere'",
        "metrics: there is no metric 'open'; the metrics are all_strict",
        "needs the same number, at least 1; now LoRA 1, align + MEDALIGN 2",
        "regimes.noise: arm 'LoRA' trains, but train.labels is 0",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["all_strict", "all_strict"]}, "metrics: all_strict appears 2 times"),
        ({"comparisons": [{"arm": "LoRA", "against": "LoRA"}]}, "comparisons: 'LoRA' is compared with itself"),
        (
            {
                "comparisons": [
                    {"arm": "LoRA", "against": "base"},
                    {"arm": "base", "against": "LoRA", "regime": "noise"},
                ]
            },
            "comparisons: 'base' against 'LoRA' in regime 'noise' appears twice, perhaps the other way around",
        ),
        ({"seeds": [True, False]}, "seeds"),
        ({"seeds": ["0"]}, "seeds"),
        ({"seeds": [0.0]}, "seeds"),
    ],
)
def test_what_would_distort_the_statistics_is_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        study_of(study_values(Path("lab")) | change)


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["base"], "regimes.noise: does not run the baseline 'LoRA', with which its arms are compared"),
        (["base"], "'align \\+ MEDALIGN' against 'LoRA': regime 'noise' does not run 'LoRA'"),
        (["LoRA"], "regime 'noise' does not run 'align \\+ MEDALIGN'"),
        ([], "regimes.0.arms"),
    ],
)
def test_a_regime_runs_what_it_compares(arms, message):
    values = study_values(Path("lab"))
    values["regimes"][0]["arms"] = arms
    with pytest.raises(SettingsError, match=message):
        study_of(values)


def test_a_mistake_in_a_regime_is_one_problem():
    values = study_values(Path("lab"))
    values["regimes"][0]["train"]["labels"] = -1
    with pytest.raises(SettingsError, match=r"has 1 problem:\n  regimes\.0\.train\.labels: .*, found -1$"):
        study_of(values)


def test_the_same_trial_twice_is_refused_in_any_notation():
    values = with_trials(study_values(Path("lab")))
    values["arms"][1]["trials"] = [{"train": {"lora.r": 2}}, {"train": {"lora": {"r": 2}}}]
    with pytest.raises(SettingsError, match=r"arms\.LoRA: trials 1 and 2 are the same"):
        study_of(values)


@pytest.mark.parametrize("order", [1, -1])
def test_a_setting_in_both_notations_is_refused(order):
    values = study_values(Path("lab"))
    values["settings"]["train"] = dict([("alignment.alpha", 1), ("alignment", {"alpha": 0.5})][::order])
    with pytest.raises(SettingsError, match=r"alignment\.alpha is set twice, once as a section"):
        study_of(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alignment.bta": 1}, r"LoRA, regime noise: .*alignment\.bta: unknown key \(did you mean 'beta'\?\)"),
        ({"data.manifest": "m.parquet"}, r"train sets data\.manifest, which the study sets itself"),
        ({"training": {"seed": 3}}, r"train sets training\.seed, which the study sets itself"),
    ],
)
def test_settings_of_arms_are_checked_before_anything_is_read(change, message):
    values = study_values(Path("nowhere"))
    values["arms"][1]["train"] |= change
    with pytest.raises(SettingsError, match=message):
        plan_study(study_of(values), None, None, "cpu", Silent())


def test_a_mistake_in_settings_of_all_arms_is_one_problem():
    values = study_values(Path("nowhere"))
    values["settings"]["train"]["alignment"] |= {"bta": 1}
    values["regimes"] = [values["regimes"][0] | {"name": name} for name in ("noise", "other")]
    with pytest.raises(SettingsError) as refused:
        plan_study(study_of(values), None, None, "cpu", Silent())
    _, *problems = str(refused.value).splitlines()
    (problem,) = problems
    assert problem.startswith("  LoRA, regime noise (and in 3 more): ")


@pytest.mark.parametrize(
    ("word", "read"), [("off", "no, off and false without quotes as False"), ("on", "yes, on and")]
)
def test_names_that_yaml_reads_as_true_or_false_need_quotes(tmp_path, word, read):
    (tmp_path / "spec.yaml").write_text(f"baseline: {word}\n")
    with pytest.raises(
        SettingsError, match=rf"baseline: Input should be a valid string, found \w+ \(YAML reads {read}"
    ):
        load_study(tmp_path / "spec.yaml")
    (tmp_path / "spec.yaml").write_text("title: 3\nbaseline: 'off'\n")
    with pytest.raises(SettingsError, match=r"title: Input should be a valid string, found 3\n") as refused:
        load_study(tmp_path / "spec.yaml")
    assert "YAML reads" not in str(refused.value)


def test_names_are_short_enough_for_files():
    values = study_values(Path("lab"))
    values["regimes"][0]["name"] = "n" * 101
    with pytest.raises(SettingsError, match=r"regimes\.0\.name: String should have at most 100 characters"):
        study_of(values)


def test_a_specification_is_the_same_in_any_notation(tmp_path):
    values = study_values(Path("lab"))
    flat = json.loads(json.dumps(values))
    flat["settings"]["train"]["lora.r"] = flat["settings"]["train"].pop("lora")["r"]
    flat["settings"]["train"]["lora.lora_dropout"] = 0.1
    assert study_of(flat) == study_of(values)

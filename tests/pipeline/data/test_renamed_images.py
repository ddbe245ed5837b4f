"""No command reads another image than the one whose hash the manifest holds."""

import hashlib
import shutil
from dataclasses import replace

import polars as pl
import pytest
from comparisons import bench_spec, make_bench
from labs import lab_settings, make_lab
from medalign.errors import InputError
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.evaluation.comparison.compare import run_comparison
from medalign.pipeline.evaluation.evaluate import EvaluationRequest, run_evaluation
from medalign.pipeline.evaluation.grounding.ground import GroundingRequest, run_grounding
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from renamed import brighten, rename_by_one, resave


@pytest.fixture
def phantoms(tmp_path):
    make_phantoms(tmp_path / "p", images=6, seed=2, progress=Silent())
    return tmp_path / "p"


def files(folder):
    return sorted((folder / "images").iterdir(), key=lambda path: (len(path.name), path.name))


def digests(manifest, name):
    """First digits of the hash that a manifest holds of an image, and of the file's bytes."""
    row = Manifest.read(manifest).frame.filter(pl.col("image") == name).row(0, named=True)
    data = (Manifest.read(manifest).root / name).read_bytes()
    return row["image_hash"][:12], hashlib.sha256(data).hexdigest()[:12]


def evaluation(student, folder, **changes):
    request = EvaluationRequest(
        student=student, manifest=folder / "manifest.parquet", batch_size=4, max_new_tokens=2, device="cpu"
    )
    return replace(request, **changes)


def grounding(student, folder):
    return GroundingRequest(
        student=student, manifest=folder / "manifest.parquet", batch_size=4, device="cpu", regions=("lesion",)
    )


@pytest.mark.parametrize("harm", [rename_by_one, lambda paths: [brighten(path) for path in paths]])
@pytest.mark.parametrize(
    ("run", "request_of"), [(run_evaluation, evaluation), (run_grounding, grounding)], ids=["evaluate", "ground"]
)
def test_questions_are_not_asked_about_other_images(student_folder, phantoms, tmp_path, run, request_of, harm):
    harm(files(phantoms))
    with pytest.raises(InputError) as caught:
        run(request_of(student_folder, phantoms), tmp_path / "out", Silent())
    manifest = phantoms / "manifest.parquet"
    first = Manifest.read(manifest).split("test").frame.row(0, named=True)
    expected, actual = digests(manifest, first["image"])
    assert expected != actual
    message = str(caught.value)
    assert message.startswith(f"question '{first['question_id'][:5]}")
    for part in (str(phantoms / first["image"]), expected, actual, "`medalign data check MANIFEST --hashes`"):
        assert part in message


def test_an_evaluation_is_not_resumed_on_renamed_images(student_folder, phantoms, tmp_path):
    out = tmp_path / "out"

    class Stop(Silent):
        def advance(self, steps=1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_evaluation(evaluation(student_folder, phantoms), out, Stop())
    kept = (out / "answers.jsonl").read_text()
    assert kept.count("\n") == 1 + 4
    rename_by_one(files(phantoms))
    with pytest.raises(InputError, match="is not the image that the manifest names"):
        run_evaluation(evaluation(student_folder, phantoms, resume=True), out, Silent())
    assert (out / "answers.jsonl").read_text() == kept
    rename_by_one(files(phantoms)[::-1])
    assert run_evaluation(evaluation(student_folder, phantoms, resume=True), out, Silent()).resumed == 4


def test_images_that_were_saved_again_without_loss_are_the_same_images(student_folder, phantoms, tmp_path):
    before = run_evaluation(evaluation(student_folder, phantoms), tmp_path / "before", Silent())
    for path in files(phantoms):
        resave(path)
    after = run_evaluation(evaluation(student_folder, phantoms), tmp_path / "after", Silent())
    assert after.scores.vqa == before.scores.vqa
    tables = [pl.read_parquet(tmp_path / name / "predictions.parquet") for name in ("before", "after")]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_training_stops_at_the_first_other_image(tmp_path, workers):
    lab = make_lab(tmp_path)
    shutil.rmtree(lab / "run", ignore_errors=True)
    rename_by_one(files(lab))
    with pytest.raises(InputError) as caught:
        run_training(Settings.model_validate(lab_settings(lab, dataloader_num_workers=workers)), lab / "run", Silent())
    message = str(caught.value)
    assert message.startswith("question ")
    assert "is not the image that the manifest names" in message
    assert "Traceback" not in message
    assert not (lab / "run" / "adapter_model.safetensors").exists()


def test_validation_images_are_checked_too(tmp_path):
    lab = make_lab(tmp_path)
    brighten(lab / "images" / "19.png")  # of a question of the validation split
    values = lab_settings(lab, max_steps=2, eval_steps=2)
    values["data"]["validation_split"] = "validation"
    with pytest.raises(InputError, match=r"question '19': .*19\.png is not the image that the manifest names"):
        run_training(Settings.model_validate(values), lab / "run", Silent())


def test_a_comparison_stops_at_the_first_other_image(tmp_path):
    folder = make_bench(tmp_path)
    rename_by_one(files(folder))
    with pytest.raises(InputError, match=r"question 'q0': .*0\.png is not the image that the manifest names"):
        run_comparison(bench_spec(folder), tmp_path / "out", [], Silent(), device="cpu")

"""A question about several images, from the manifest through both stages to its answer and its interval."""

import json
from itertools import combinations

import numpy as np
import polars as pl
import pytest
import torch
from medalign.errors import InputError
from medalign.pipeline.data.manifest import Manifest, Turn
from medalign.pipeline.data.regions import Region
from medalign.pipeline.data.samples import manifest_samples
from medalign.pipeline.evaluation.evaluate import EvaluationRequest, run_evaluation
from medalign.pipeline.evaluation.grounding.ground import GroundingRequest, run_grounding
from medalign.pipeline.extraction.extract import CrewRequest, ExtractionRequest, run_extraction
from medalign.pipeline.extraction.image_sources import ImageRequest
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.decoding import decodings
from medalign.student.inputs.collation import encode_sample
from medalign.student.inspection.question_attention import attention_of_layers
from medalign.student.loading.student_loading import load_student
from medalign.teacher_cache.images import decode_image
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from renamed import brighten
from rows import image_fields, row
from safetensors.torch import save_file
from students import LAYER, write_images

SIZES = [(24, 24), (40, 20), (18, 30), (24, 24), (30, 24)]
ASKS = {
    "both": ("Which of the two is wide?", (0, 1)),
    "one": ("What is it?", (2,)),
    "none": ("Say yes.", ()),
    "three": ("What changed?", (1, 3, 4)),
    "again": ("Is it round?", (0,)),
    "test": ("What is seen?", (3,)),
    "test-both": ("Is the second wide?", (4, 1)),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory, student_folder):
    """A manifest of questions about none to three images, a teacher's store of all, and a trained student."""
    folder = tmp_path_factory.mktemp("several")
    images = [image_fields(path) for path in write_images(folder / "images", SIZES)]
    rows = [
        row(
            name,
            *(images[number] for number in seen),
            question=question,
            answer="yes" if index % 2 else "the first lung",
            answer_type="closed" if index % 2 else "open",
            split="test" if name.startswith("test") else "train",
            history=(Turn("A scan?", "yes"),) if name == "both" else (),
            regions=(Region(name="lung", box=(0, 0, 12, 12)),) if seen else (),
        )
        for index, (name, (question, seen)) in enumerate(ASKS.items())
    ]
    Manifest.from_rows(rows, folder / "images", "several").write(folder / "m.parquet")
    torch.manual_seed(3)
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), folder / "teacher.safetensors")
    request = ExtractionRequest(
        teacher="phantom-tiny",
        weights=str(folder / "teacher.safetensors"),
        out=folder / "store.zarr",
        images=ImageRequest(manifest=folder / "m.parquet"),
        crew=CrewRequest(device="cpu"),
        grid="3x3",
        threads=1,
    )
    run_extraction(request, Silent())
    values = {
        "student": {"path": str(student_folder), "template": "vicuna_v1"},
        "data": {"manifest": str(folder / "m.parquet"), "store": str(folder / "store.zarr")},
        "alignment": {"layer": LAYER, "alpha": 1.0, "beta": 1.0},
        "lora": {"r": 2},
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": 1,
            "dataloader_num_workers": 0,
            "device": "cpu",
        },
    }
    settings = Settings.model_validate(values)
    run_training(settings, folder / "adapter", Silent())
    return folder, settings


def test_the_store_has_every_image_and_training_learns_from_each(lab):
    folder, settings = lab
    store = open_store(folder / "store.zarr")
    hashes = [image_fields(path)["image_hash"] for path in sorted((folder / "images").iterdir())]
    assert len(store) == len(hashes) == 5
    assert store.missing(hashes) == []
    plan = plan_training(settings)
    assert plan.summary()["store_rows"] == "5 of 5 images"
    by_id = {sample.question_id: index for index, sample in enumerate(plan.samples)}
    for name, (_, seen) in ASKS.items():
        if name.startswith("test"):
            continue
        encoded = plan.train[by_id[name]]
        assert [image.path.name for image in plan.samples[by_id[name]].images] == [f"{number}.png" for number in seen]
        if seen:
            expected = store.read([hashes[number] for number in seen])
            assert torch.equal(encoded.E_v, expected.E_v)
            assert torch.equal(encoded.E_a, expected.E_a)
        else:
            assert encoded.pixel_values is None
    summary = json.loads((folder / "adapter" / "summary.json").read_text())
    assert summary["final"]["loss_vis"] > 0
    assert summary["final"]["loss_att"] > 0


def test_images_stand_before_the_question_in_their_order(lab, student_folder):
    folder, _ = lab
    student = load_student(student_folder)
    samples = {sample.question_id: sample for sample in manifest_samples(Manifest.read(folder / "m.parquet"))}
    encoded = encode_sample(student, samples["three"], with_answer=False)
    is_image = (encoded.input_ids == student.model.image_token_id).tolist()
    assert sum(is_image) == 3 * 9
    after_the_last = len(is_image) - is_image[::-1].index(True)
    assert "What changed?" in student.tokenizer.decode(encoded.input_ids[after_the_last:])
    for pixels, number in zip(encoded.pixel_values, (1, 3, 4), strict=True):
        data = (folder / "images" / f"{number}.png").read_bytes()
        assert torch.equal(pixels, student.images.pixels(decode_image(data).rgb))


@pytest.mark.parametrize("name", sorted(decodings()))
def test_every_decoding_answers_questions_about_two_images(lab, tmp_path, name):
    folder, _ = lab
    request = EvaluationRequest(
        student=folder / "adapter", manifest=folder / "m.parquet", decode=name, batch_size=2, max_new_tokens=2,
        device="cpu", overrides=("decode.outliers=4",) if name == "damro" else (),
    )  # fmt: skip
    run_evaluation(request, tmp_path / "out", Silent())
    table = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert table["question_id"].to_list() == ["test", "test-both"]
    hashes = [image_fields(folder / "images" / f"{number}.png")["image_hash"] for number in (3, 4, 1)]
    assert table["image_hashes"].to_list() == [hashes[:1], hashes[1:]]


def test_a_second_image_that_was_changed_is_noticed(lab, tmp_path):
    folder, _ = lab
    manifest = Manifest.read(folder / "m.parquet").split("test")
    write_images(tmp_path / "images", SIZES)
    brighten(tmp_path / "images" / "1.png")
    Manifest(manifest.frame, tmp_path / "images", "x").write(tmp_path / "m.parquet")
    request = EvaluationRequest(
        student=folder / "adapter", manifest=tmp_path / "m.parquet", batch_size=1, max_new_tokens=2, device="cpu"
    )
    with pytest.raises(InputError, match=r"question 'test-both': .*1\.png is not the image that the manifest names"):
        run_evaluation(request, tmp_path / "out", Silent())


def test_grounding_measures_attention_on_the_first_image(lab, student_folder, tmp_path):
    """The regions are the first image's; the maps are those that the student has of it beside the others."""
    folder, _ = lab
    request = GroundingRequest(
        student=student_folder, manifest=folder / "m.parquet", split="train", batch_size=4, device="cpu",
        regions=("lung",),
    )  # fmt: skip
    report = run_grounding(request, tmp_path / "out", Silent())
    table = pl.read_parquet(tmp_path / "out" / "grounding.parquet").filter(pl.col("layer") == 0)
    assert table["question_id"].to_list() == ["both", "one", "three", "again"]
    assert report.findings.images == 3
    maps = torch.from_numpy(np.load(tmp_path / "out" / "attention.npy"))
    student = load_student(student_folder)
    samples = {sample.question_id: sample for sample in manifest_samples(Manifest.read(folder / "m.parquet"))}
    for index, name in enumerate(table["question_id"]):
        encoded = encode_sample(student, samples[name], with_answer=False)
        ids = encoded.input_ids[None]
        alone = attention_of_layers(student.model, ids, torch.ones_like(ids), encoded.pixel_values)
        torch.testing.assert_close(maps[index], alone[0].float(), atol=1e-6, rtol=1e-4)
        assert len(alone) == len(ASKS[name][1])
        for one, other in combinations(range(len(alone)), 2):
            assert not torch.allclose(alone[one], alone[other], atol=1e-3)

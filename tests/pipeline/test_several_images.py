"""A question about several images, from the manifest through both stages to its answer and its interval."""

import hashlib
import json
from itertools import combinations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from medalign.errors import InputError
from medalign.pipeline.checking import check_manifest
from medalign.pipeline.comparison.run import _images as image_of_each_question
from medalign.pipeline.describing import describe_questions
from medalign.pipeline.evaluation import EvaluationRequest, run_evaluation
from medalign.pipeline.extraction import CrewRequest, ExtractionRequest, run_extraction
from medalign.pipeline.extraction_sources import ImageRequest
from medalign.pipeline.grounding.run import GroundingRequest, run_grounding
from medalign.pipeline.importers.common import shared_images
from medalign.pipeline.importers.splits import split_by_image
from medalign.pipeline.manifest import SCHEMA, Manifest, ManifestImage, ManifestRow, Turn, manifest_problems
from medalign.pipeline.manifest_images import image_groups
from medalign.pipeline.planning import plan_training
from medalign.pipeline.regions import Region
from medalign.pipeline.samples import manifest_samples
from medalign.pipeline.settings import Settings
from medalign.pipeline.sharing import Selection
from medalign.pipeline.training import run_training
from medalign.progress import Silent
from medalign.student.data import encode_sample
from medalign.student.decoding import decodings
from medalign.student.grounding import attention_of_layers
from medalign.student.loading import load_student
from medalign.teacher_cache.images import decode_image
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from renamed import brighten
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


def image_fields(path):
    data = path.read_bytes()
    decoded = decode_image(data)
    return {
        "image": path.name,
        "image_hash": hashlib.sha256(data).hexdigest(),
        "pixel_hash": decoded.pixel_hash,
        "width": decoded.width,
        "height": decoded.height,
    }


def made(number):
    """Fields of an image of which there is no file."""
    return {"image": f"{number}.png", "image_hash": f"{number:064x}", "pixel_hash": f"{number + 100:064x}"}


def row(question_id, *images, **changes):
    """A question about images, each given by its fields."""
    first, more = (images[0], images[1:]) if images else ({}, ())
    fields = {"question": "What?", "answer": "a", "answer_type": "open", "split": "train", "data_use": "public"}
    further = {"more_images": tuple(ManifestImage(**image) for image in more)}
    return ManifestRow(question_id=question_id, **{**fields, **first, **further, **changes})


def written(folder, *rows):
    path = folder / "m.parquet"
    Manifest.from_rows(rows, folder, "x").write(path)
    return path


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
    )
    run_extraction(request, Silent())
    values = {
        "student": {"path": str(student_folder), "template": "vicuna_v1"},
        "data": {"manifest": str(folder / "m.parquet"), "store": str(folder / "store.zarr")},
        "alignment": {"layer": LAYER, "alpha": 1.0, "beta": 1.0},
        "lora": {"rank": 2},
        "training": {"max_steps": 2, "batch_size": 3, "accumulation_steps": 1, "workers": 0, "device": "cpu"},
    }
    settings = Settings.model_validate(values)
    run_training(settings, folder / "adapter", Silent())
    return folder, settings


def test_further_images_come_back_and_older_manifests_have_none(tmp_path):
    path = written(
        tmp_path, row("1", made(1), made(2) | {"width": 9, "height": 4}, made(3)), row("2", made(1)), row("3")
    )
    read = Manifest.read(path).frame
    expected = [made(2) | {"width": 9, "height": 4}, made(3) | {"width": None, "height": None}]
    assert read["more_images"].to_list() == [expected, [], []]
    assert json.loads(pl.read_parquet_metadata(path)["medalign"])["version"] == 2
    plain = written(tmp_path, row("2", made(1)))
    header = pl.read_parquet_metadata(plain)["medalign"]
    assert json.loads(header)["version"] == 1, "a reader that knows no further images loses none here"
    pl.read_parquet(plain).drop("more_images", "regions").write_parquet(plain, metadata={"medalign": header})
    older = Manifest.read(plain).frame
    assert older["more_images"].to_list() == [[]]
    assert older.schema == SCHEMA


def test_all_wrong_images_are_named_in_one_error(tmp_path):
    good = made(1)
    rows = (
        row("good", good, made(2)),
        row("a", more_images=(ManifestImage(**good),)),
        row("b", good, made(2) | {"image": None}),
        row("c", good, made(2) | {"image_hash": None}),
        row("d", good, made(2) | {"image": "../2.png"}),
        row("e", good, made(2), made(3) | {"image_hash": "ABC"}),
        row("f", made(3) | {"image_hash": "ef" * 32}),
    )
    with pytest.raises(InputError) as caught:
        Manifest.from_rows(rows, tmp_path, "test")
    assert str(caught.value).splitlines()[1:] == [
        "  - more_images without an image: 1 rows, first question_id a",
        "  - one of more_images lacks its image or its image_hash: 2 rows, first question_id b, c",
        "  - an image of more_images is not a posix path inside the root: 1 rows, first question_id d",
        "  - an image_hash of more_images is not 64 hex digits: 1 rows, first question_id e",
        "  - one image name with more than one image_hash: 2 rows, first question_id e, f",
    ]
    frame = Manifest.from_rows([row("null", good)], tmp_path, "x").frame
    assert manifest_problems(frame.with_columns(more_images=pl.lit(None, SCHEMA["more_images"]))) == [
        "more_images is null: 1 rows, first question_id null"
    ]


def test_every_image_is_listed_once_by_hash_and_once_by_name(tmp_path):
    copy = made(1) | {"image": "copy.png"}
    manifest = Manifest.from_rows(
        [row("a", made(2), made(3), made(1)), row("b"), row("c", copy, made(2))], tmp_path, "x"
    )
    assert manifest.images()["image"].to_list() == ["2.png", "3.png", "1.png"]
    assert manifest.image_files()["image"].to_list() == ["2.png", "3.png", "1.png", "copy.png"]


names = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=3), max_size=10)


@given(questions=names)
def test_groups_are_the_connected_questions(questions):
    """Against a slow closure: questions that share an image are merged until nothing changes."""
    groups = [{image} for image in "abcdefgh"]
    for _ in questions:
        for question in questions:
            touched = [group for group in groups if group & set(question)]
            if touched:
                groups = [group for group in groups if group not in touched] + [set().union(*touched)]
    of = {image: min(group) for group in groups for image in group}
    assert image_groups(questions) == [of[question[0]] if question else None for question in questions]


def test_leakage_through_a_second_image(tmp_path):
    path = written(
        tmp_path,
        row("a", made(1), made(2)),
        row("b", made(3)),
        row("c", made(4), made(2), split="test"),
        row("d", made(5), split="test"),
        row("e", made(6), made(7) | {"pixel_hash": made(3)["pixel_hash"]}, split="test"),
        row("f", made(1), made(2), split="test"),
        row("g", made(2), made(1), split="test"),
    )
    report = check_manifest(path, None, Silent())
    (found,) = report.leakage
    assert (found.images, found.questions) == ((3, 6), (2, 5))
    assert (found.shared_images, found.shared_pixels) == (2, 1)
    assert found.shared_questions == 1, "the same images in another order are another question"
    assert found.touched_questions == (2, 4)
    assert report.missing_images.count == 7
    manifest = Manifest.read(path)
    assert shared_images(manifest) == 2


def test_contradictions_are_about_the_same_images(tmp_path):
    path = written(
        tmp_path,
        row("a", made(1), made(2)),
        row("b", made(1), made(3), answer="b"),
        row("c", made(1), made(2), answer="b"),
        row("d", made(1), made(2)),
        row("e", made(1), made(4) | {"pixel_hash": None}, answer="b"),
    )
    report = check_manifest(path, None, Silent())
    assert report.contradictions.first == ("c",)
    assert report.duplicates.first == ("d",)
    assert report.undecodable_images.first == ("4.png",)


@pytest.mark.parametrize("seed", range(4))
def test_no_image_is_drawn_into_two_splits(tmp_path, seed):
    pairs = [(number, (number * 7 + 1) % 40) for number in range(0, 40, 2)]
    rows = [row(f"q{index}", *map(made, pair)) for index, pair in enumerate(pairs)]
    rows += [row(f"s{number}", made(number)) for number in range(0, 40, 3)]
    drawn = split_by_image(Manifest.from_rows(rows, tmp_path, "x"), {"train": 0.5, "test": 0.5}, seed)
    splits = {}
    for split, first, more in drawn.frame.select("split", "image_hash", "more_images").iter_rows():
        for digest in (first, *(image["image_hash"] for image in more)):
            splits.setdefault(digest, set()).add(split)
    assert all(len(where) == 1 for where in splits.values())
    assert {split for where in splits.values() for split in where} == {"train", "test"}
    assert shared_images(drawn) == 0


def test_the_digest_of_questions_covers_further_images_and_else_is_what_it_was(tmp_path):
    columns = ["question_id", "image_hash"]
    frames = [
        Manifest.from_rows([row("1", made(1), *more), row("2", made(4))], tmp_path, "x").frame
        for more in ((), (made(2),), (made(3),), (made(2), made(3)))
    ]
    digests = [describe_questions(frame, columns)["questions_sha256"] for frame in frames]
    assert len(set(digests)) == 4
    lines = [json.dumps({"question_id": name, "image_hash": made(n)["image_hash"]}) for name, n in (("1", 1), ("2", 4))]
    text = "".join(f"{line}\n" for line in lines).replace(": ", ":").replace(", ", ",")
    assert digests[0] == hashlib.sha256(text.encode()).hexdigest()
    renamed = frames[1].with_columns(
        pl.col("more_images").list.eval(pl.element().struct.with_fields(image=pl.lit("other.png")))
    )
    assert describe_questions(renamed, columns)["questions_sha256"] == digests[1], "names are nothing to an answer"


def test_intervals_draw_questions_with_a_common_image_together(tmp_path):
    manifest = Manifest.from_rows(
        [row("a", made(2), made(3)), row("b", made(3)), row("c", made(5)), row("d"), row("e", made(5), made(6))],
        tmp_path,
        "x",
    )
    two, five = made(2)["image_hash"], made(5)["image_hash"]
    assert image_of_each_question(manifest) == [two, two, five, "question d", five]


def test_stores_are_cut_to_all_images_of_a_manifest(tmp_path):
    path = written(tmp_path, row("a", made(1), made(2)), row("b", made(2)))
    assert [wanted.image_hash for wanted in Selection(manifest=path).read()] == [
        made(1)["image_hash"],
        made(2)["image_hash"],
    ]


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
    text = student.tokenizer.decode(encoded.input_ids)
    assert text.rindex("<image>") < text.index("What changed?")
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
    with pytest.raises(InputError, match=r"question test-both: .*1\.png is not the image that the manifest names"):
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

"""Tables of questions about several images: the column, its rules, and everything that counts or joins images."""

import hashlib
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medalign.errors import InputError
from medalign.pipeline.data.data_check import check_manifest
from medalign.pipeline.data.importers.common import shared_images
from medalign.pipeline.data.importers.splits import split_by_image
from medalign.pipeline.data.manifest import SCHEMA, Manifest, ManifestImage, manifest_problems
from medalign.pipeline.data.manifest_images import image_groups
from medalign.pipeline.evaluation.comparison.compare import _images as image_of_each_question
from medalign.pipeline.runs.provenance import describe_questions
from medalign.pipeline.stores.share import Selection
from medalign.progress import Silent
from rows import made, row, written


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
        "  - more_images without an image: 1 row, first question_id a",
        "  - an entry of more_images has no image or no image_hash: 2 rows, first question_id b, c",
        "  - an image of more_images is not a POSIX path inside the root: 1 row, first question_id d",
        "  - an image_hash of more_images is not 64 hex digits: 1 row, first question_id e",
        "  - one image name with more than one image_hash: 2 rows, first question_id e, f",
    ]
    frame = Manifest.from_rows([row("null", good)], tmp_path, "x").frame
    assert manifest_problems(frame.with_columns(more_images=pl.lit(None, SCHEMA["more_images"]))) == [
        "more_images is null: 1 row, first question_id null"
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

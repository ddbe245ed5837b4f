"""A manifest comes back as it was written, and a table that is none says everything that is wrong."""

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.errors import InputError
from medalign.pipeline.data.manifest import MANIFEST_VERSION, SCHEMA, Manifest, ManifestRow, Turn, manifest_problems
from medalign.pipeline.data.regions import Region

HASH = "ab" * 32
OTHER = "cd" * 32


def row(question_id="q1", **changes):
    fields = {
        "image": "images/a.png",
        "image_hash": HASH,
        "pixel_hash": OTHER,
        "width": 8,
        "height": 6,
        "question_id": question_id,
        "question": "Is it there?",
        "answer": "yes",
        "answer_type": "closed",
        "split": "train",
        "data_use": "public",
    }
    return ManifestRow(**{**fields, **changes})


def manifest(*rows, root):
    return Manifest.from_rows(rows or (row(),), root, "test")


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    rows = (
        row("q1", options=("yes", "no"), history=(Turn("And now?", "Nothing."), Turn("Sure?", "Yes."))),
        row("q2", image=None, image_hash=None, pixel_hash=None, width=None, height=None),
        row("q3", question=None, answer=None, answer_type=None, split="test", organ="chest"),
    )
    written = manifest(*rows, root=tmp_path / "data")
    written.write(tmp_path / "deep" / "m.parquet")
    read = Manifest.read(tmp_path / "deep" / "m.parquet")
    assert read.frame.equals(written.frame)
    assert read.frame.schema == SCHEMA
    assert (read.root, read.source) == (tmp_path / "data", "test")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["m.parquet"]


def test_the_root_travels_with_the_folder_and_can_be_replaced(tmp_path):
    manifest(root=tmp_path / "here" / "data").write(tmp_path / "here" / "m.parquet")
    header = json.loads(pl.read_parquet_metadata(tmp_path / "here" / "m.parquet")["medalign"])
    assert header == {"format": "medalign-manifest", "version": 1, "source": "test", "root": "data", "unreadable": []}
    (tmp_path / "here").rename(tmp_path / "there")
    moved = Manifest.read(tmp_path / "there" / "m.parquet")
    assert moved.path_of("images/a.png") == tmp_path / "there" / "data" / "images" / "a.png"
    replaced = Manifest.read(tmp_path / "there" / "m.parquet", root=tmp_path / "elsewhere")
    assert replaced.root == tmp_path / "elsewhere"


def test_images_are_distinct_by_hash_in_first_seen_order(tmp_path):
    made = manifest(
        row("1", image="b.png", image_hash=OTHER),
        row("2", image="a.png", image_hash=HASH),
        row("3", image="copy-of-b.png", image_hash=OTHER),
        row("4", image=None, image_hash=None),
        root=tmp_path,
    )
    assert made.images()["image"].to_list() == ["b.png", "a.png"]


@pytest.mark.parametrize(
    ("classes", "strictest"),
    [
        (["public", "public"], "public"),
        (["public", "credentialed"], "credentialed"),
        (["private", "credentialed", "public"], "private"),
        ([], "public"),
    ],
)
def test_the_strictest_row_gives_the_data_use_class(tmp_path, classes, strictest):
    rows = [row(f"q{number}", data_use=data_use) for number, data_use in enumerate(classes)]
    assert Manifest.from_rows(rows, tmp_path, "test").data_use == strictest


def test_a_split_that_is_not_there_names_those_that_are(tmp_path):
    made = manifest(row("1"), row("2", split="test"), row("3", question=None, split="test"), root=tmp_path)
    assert made.splits == {"train": 1, "test": 2}
    assert made.split("test").questions["question_id"].to_list() == ["2"]
    with pytest.raises(InputError, match=r"no split 'val'; its splits: train \(1 row\), test \(2 rows\)"):
        made.split("val")


def test_all_wrong_values_are_named_in_one_error(tmp_path):
    rows = (
        row("twice"),
        row("twice"),
        row("a", answer_type="maybe"),
        row("b", data_use="secret"),
        row("c", image="/etc/a.png"),
        row("d", image="../a.png"),
        row("e", image_hash=None),
        row("f", image_hash="ABC"),
        row("g", image=None, image_hash=None, question=None),
        row("h", answer_type="choice"),
        row("i", split=""),
        row("j", image="a\\b.png"),
    )
    with pytest.raises(InputError) as caught:
        manifest(*rows, root=tmp_path)
    message = str(caught.value)
    for expected in (
        "question_id is not unique: 2 rows, first question_id twice",
        "answer_type is not one of open, closed, choice, report: 1 row, first question_id a",
        "data_use is not one of public, credentialed, private: 1 row, first question_id b",
        "image is not a POSIX path inside the root: 3 rows, first question_id c, d, j",
        "image and image_hash must both be set or both be null: 1 row, first question_id e",
        "image_hash is not 64 hex digits: 1 row, first question_id f",
        "neither an image nor a question: 1 row, first question_id g",
        "a choice question without options: 1 row, first question_id h",
        "split is null or empty: 1 row, first question_id i",
    ):
        assert expected in message


def test_missing_columns_and_wrong_types_are_all_named(tmp_path):
    path = tmp_path / "m.parquet"
    manifest(root=tmp_path).write(path)
    metadata = {"medalign": pl.read_parquet_metadata(path)["medalign"]}
    frame = pl.read_parquet(path).drop("answer", "split").with_columns(pl.col("width").cast(pl.Int64))
    frame.write_parquet(path, metadata=metadata)
    with pytest.raises(InputError) as caught:
        Manifest.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "column answer is missing" in message
    assert "column split is missing" in message
    assert "column width is Int64, not Int32" in message


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "not a medalign manifest"),
        ("{broken", "not a medalign manifest"),
        (json.dumps({"format": "another"}), "not a medalign manifest"),
        (
            json.dumps({"format": "medalign-manifest", "version": MANIFEST_VERSION + 1}),
            f"version {MANIFEST_VERSION + 1}, but this medalign reads only up to {MANIFEST_VERSION}",
        ),
    ],
)
def test_a_foreign_or_newer_file_is_refused(tmp_path, header, expected):
    path = tmp_path / "m.parquet"
    manifest(root=tmp_path).frame.write_parquet(path, metadata=None if header is None else {"medalign": header})
    with pytest.raises(InputError, match=expected):
        Manifest.read(path)


def test_no_file_and_no_parquet_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="medalign data import"):
        Manifest.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="is not a Parquet file"):
        Manifest.read(tmp_path / "text.parquet")


def test_further_columns_are_kept(tmp_path):
    frame = manifest(root=tmp_path).frame.with_columns(mask=pl.lit("masks/a.png"))
    assert manifest_problems(frame) == []
    Manifest(frame, tmp_path, "test").write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").frame["mask"].to_list() == ["masks/a.png"]


def test_regions_come_back_and_a_manifest_from_before_they_were_there_has_none(tmp_path):
    regions = (
        Region(name="liver", mask="masks/a.png", value=3),
        Region(name="Mass", box=(1.5, 2.0, 3.0, 4.25)),
        Region(name="lung", mask="masks/b.png", box=(0, 0, 5, 5)),
    )
    path = tmp_path / "m.parquet"
    manifest(row("1", regions=regions), row("2"), root=tmp_path).write(path)
    read = Manifest.read(path).frame
    assert read["regions"].to_list() == [
        [
            {"name": "liver", "mask": "masks/a.png", "value": 3, "box": None},
            {"name": "Mass", "mask": None, "value": None, "box": [1.5, 2.0, 3.0, 4.25]},
            {"name": "lung", "mask": "masks/b.png", "value": None, "box": [0.0, 0.0, 5.0, 5.0]},
        ],
        [],
    ]
    read.drop("regions").write_parquet(path, metadata={"medalign": pl.read_parquet_metadata(path)["medalign"]})
    older = Manifest.read(path)
    assert older.frame["regions"].to_list() == [[], []]
    assert older.frame.schema == SCHEMA


def test_all_wrong_regions_are_named_in_one_error(tmp_path):
    good = Region(name="liver", mask="masks/a.png")
    rows = (
        row("a", regions=(good, Region(name="", mask="a.png"))),
        row("b", regions=(good, Region(name="x"))),
        row("c", regions=(Region(name="x", value=1, box=(0, 0, 1, 1)),)),
        row("d", regions=(good, Region(name="x", mask="../a.png"))),
        row("e", regions=(Region(name="x", box=(0, 0, 1)),)),
        row("f", regions=(good, Region(name="x", box=(0, 0, 0, 1)))),
        row("g", regions=(Region(name="x", box=(0, float("nan"), 1, 1)),)),
        row("h", regions=(Region(name="x", box=()),)),
        row("i", image=None, image_hash=None, regions=(good,)),
        row("good", regions=(good,)),
    )
    with pytest.raises(InputError) as caught:
        manifest(*rows, root=tmp_path)
    assert str(caught.value).splitlines()[1:] == [
        "  - a region without a name: 1 row, first question_id a",
        "  - a region with neither a mask nor a box: 1 row, first question_id b",
        "  - a region with a value but no mask: 1 row, first question_id c",
        "  - a region's mask is not a POSIX path inside the root: 1 row, first question_id d",
        "  - a region's box is not x, y, width, height with a positive size: 4 rows, first question_id e, f, g",
        "  - regions without an image: 1 row, first question_id i",
    ]
    frame = manifest(row("null"), root=tmp_path).frame.with_columns(regions=pl.lit(None, SCHEMA["regions"]))
    assert manifest_problems(frame) == ["regions is null: 1 row, first question_id null"]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=25, deadline=None)
@given(
    questions=st.lists(texts, min_size=1, max_size=4),
    answer=st.none() | texts,
    options=st.none() | st.lists(texts, max_size=3).map(tuple),
    history=st.lists(st.builds(Turn, texts, texts), max_size=3).map(tuple),
)
def test_any_text_survives_the_round_trip(tmp_path_factory, questions, answer, options, history):
    folder = tmp_path_factory.mktemp("round")
    rows = [
        row(str(index), question=question, answer=answer, options=options, history=history)
        for index, question in enumerate(questions)
    ]
    written = manifest(*rows, root=folder)
    written.write(folder / "m.parquet")
    read = Manifest.read(folder / "m.parquet").frame
    assert read["question"].to_list() == questions
    first = read.row(0, named=True)
    assert first["answer"] == answer
    assert first["options"] == (None if options is None else list(options))
    assert first["history"] == [{"question": turn.question, "answer": turn.answer} for turn in history]

"""Splits that are drawn: disjoint by image, seeded, of the shares that were asked for."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medalign.errors import SettingsError
from medalign.pipeline.data.import_manifest import import_manifest
from medalign.pipeline.data.importers.splits import drawn_split, parse_shares, split_by_image, split_name
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.progress import Silent
from release_trees import draw, omnimedvqa

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


def test_names_of_the_validation_split():
    assert [split_name(name) for name in ("val", "validate", " test ", "train", "dev")] == [
        "validation", "validation", "test", "train", "validation"
    ]  # fmt: skip


def test_shares_are_read_and_checked():
    assert parse_shares("mine") is None
    assert parse_shares("Train=0.8, val=0.2") == {"train": 0.8, "validation": 0.2}
    assert parse_shares("train=0.8, test=0.2") == {"train": 0.8, "test": 0.2}
    for wrong in (
        "train=0.8",
        "train=0.8,test=0.1",
        "train=1.2,test=-0.2",
        "a=0.5,a=0.5",
        "val=0.5,dev=0.5",
        "a=x,b=1",
        "a=0.5,b",
        "=1",
        "a=nan,b=1",
    ):
        with pytest.raises(SettingsError, match="expected a name, or fractions that sum to 1"):
            parse_shares(wrong)


def test_shares_come_out_as_asked():
    counts = Counter(drawn_split(str(number), SHARES, seed=3) for number in range(5000))
    assert all(abs(counts[name] / 5000 - share) < 0.02 for name, share in SHARES.items())


@given(group=st.text(), seed=st.integers(0, 9), digits=st.integers(1, 9))
def test_every_group_has_one_split(group, seed, digits):
    thirds = {"a": 1 / 3, "b": round(1 / 3, digits), "c": 1 - 1 / 3 - round(1 / 3, digits)}
    first = drawn_split(group, thirds, seed)
    assert first in thirds
    assert drawn_split(group, thirds, seed) == first


def rows(images, questions):
    for image in range(images):
        columns = {"image": f"{image}.png", "image_hash": f"{image:064x}", "data_use": "public"}
        for question in range(questions):
            yield ManifestRow(question_id=f"{image}-{question}", question="q", answer="a", split="test", **columns)
    yield ManifestRow(question_id="still", split="images", image="x.png", image_hash="f" * 64, data_use="public")
    yield ManifestRow(question_id="text", question="q", split="test", data_use="public")


def test_no_image_is_in_two_splits(tmp_path):
    manifest = split_by_image(Manifest.from_rows(rows(60, 3), tmp_path, "x"), SHARES, seed=1)
    by_image = manifest.questions.group_by("image_hash").n_unique()
    assert set(by_image["split"]) == {1}
    assert set(manifest.questions["split"]) == set(SHARES)
    assert manifest.split("images").frame["question_id"].to_list() == ["still"]
    again = split_by_image(Manifest.from_rows(rows(80, 3), tmp_path, "x"), SHARES, seed=1)
    joined = manifest.frame.join(again.frame, on="question_id", suffix="_again")
    assert (joined["split"] == joined["split_again"]).all()
    other = split_by_image(Manifest.from_rows(rows(60, 3), tmp_path, "x"), SHARES, seed=2)
    assert not manifest.frame.equals(other.frame)


def run(kind, source, out, **changes):
    given = {"split": None, "data_use": None, "images": None, "seed": None, "language": None, **changes}
    return import_manifest(kind, source, out, progress=Silent(), **given)


def test_a_split_is_drawn_where_none_is_published(tmp_path):
    tree, out = omnimedvqa(tmp_path), tmp_path / "m.parquet"
    report = run("omnimedvqa", tree, out, split="a=0.5,b=0.5", seed=4)
    assert set(report.manifest.splits) <= {"a", "b"}
    assert Manifest.read(out).frame.equals(report.manifest.frame)
    with pytest.raises(SettingsError, match=r"--split a=0\.5,b=0\.5: slake is published with its own split"):
        run("slake", tree, out, split="a=0.5,b=0.5")


@pytest.mark.parametrize(
    ("kind", "given"), [("vqa-rad", {"seed": 1}), ("pathvqa", {"language": "en"}), ("folder", {"images": "x"})]
)
def test_options_without_a_use_are_refused(tmp_path, kind, given):
    ((name, value),) = given.items()
    with pytest.raises(SettingsError, match=f"--{name} {value}: not used for {kind}"):
        run(kind, tmp_path, tmp_path / "m.parquet", **given)


@pytest.mark.parametrize("split", ["test", "train=0.5,test=0.5"])
def test_a_split_does_not_replace_the_column_of_a_table(tmp_path, split):
    draw(tmp_path / "a.png", 1)
    table, out = tmp_path / "t.csv", tmp_path / "m.parquet"
    table.write_text("image,question,answer,Subset\na.png,What?,a,train\n")
    with pytest.raises(SettingsError, match=f"--split {split}: {table} has its own split in the column Subset"):
        run("table", table, out, split=split)
    assert not out.exists()
    table.write_text("image,question,answer\na.png,What?,a\n")
    assert sum(run("table", table, out, split=split).manifest.splits.values()) == 1

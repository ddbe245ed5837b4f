"""`data check` says what splits share and what is wrong with rows, as a slow count by hand does."""

import json
import os
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.cli import app
from medalign.errors import PartialResult
from medalign.pipeline.data.data_check import check_manifest
from medalign.pipeline.data.importers import ImportOptions, import_slake, import_vqa_rad
from medalign.pipeline.data.manifest import Manifest, ManifestRow, Turn
from medalign.pipeline.data.regions import Region
from medalign.progress import Silent
from release_trees import draw, slake
from typer.testing import CliRunner

REAL_DATA = os.environ.get("MEDALIGN_REAL_DATA")


def row(number, split="train", image=0, pixels=None, **changes):
    """A question about image `image`, whose pixels are those of image `pixels`."""
    given = {"question": "What?", "answer": "a", "answer_type": "open", "data_use": "public", **changes}
    if image is not None:
        given |= {
            "image": f"{image}.png",
            "image_hash": f"{image:064x}",
            "pixel_hash": None if pixels == "none" else f"{image if pixels is None else pixels:064x}",
        }
    return ManifestRow(question_id=f"q{number}", split=split, **given)


def checked(tmp_path, rows):
    path = tmp_path / "m.parquet"
    Manifest.from_rows(rows, tmp_path, "x").write(path)
    return check_manifest(path, None, Silent())


def test_leakage_by_bytes_pixels_and_questions(tmp_path):
    report = checked(
        tmp_path,
        [
            row(0),
            row(1, question="Where?"),
            row(2, image=1),
            row(3, image=2),
            row(4, "test"),
            row(5, "test", question=" what? "),
            row(6, "test", image=7, pixels=1),
            row(7, "test", image=8),
            row(8, "validation", image=9),
            row(9, "images", image=2, question=None, answer=None, answer_type=None),
        ],
    )
    (found,) = report.leakage
    assert found.splits == ("train", "test")
    assert (found.images, found.questions) == ((3, 3), (4, 4))
    assert (found.shared_images, found.shared_pixels, found.shared_questions) == (1, 1, 1)
    assert found.touched_questions == (3, 3)
    assert found.first_images == (("0.png", "0.png"), ("1.png", "7.png"))
    assert found.first_questions == (("q0", "q4"),)
    assert report.table()["leakage"] == [
        "image 0.png of train is 0.png of test",
        "image 1.png of train is 7.png of test",
        "question q0 of train is q4 of test",
    ]
    (sentence,) = report.sentences()
    assert sentence == (
        "train and test share 1 image with equal bytes and 1 more with equal pixels: 3 of 4 questions of train and "
        "3 of 4 of test are about shared images"
    )


def test_what_is_wrong_with_rows(tmp_path):
    options = ("yes", "no")
    report = checked(
        tmp_path,
        [
            row(0),
            row(1, answer=" A"),  # repeats q0
            row(2, "test"),  # in another split: leakage, not a duplicate
            row(3, answer="b"),  # contradicts q0
            row(4, answer="b", history=(Turn("earlier", "x"),)),  # another conversation
            row(5, image=1, answer=None),
            row(6, image=1, answer="  "),
            row(7, image=2, pixels="none"),
            row(8, image=3, answer_type="choice", options=options, answer="YES"),
            row(9, image=3, answer_type="choice", options=options, answer="maybe", question="Really?"),
            row(10, image=3, answer_type="choice", options=options, answer="B", question="Or so?"),
            row(11, image=None),
            row(12, image=None, answer="c"),  # no image: nothing that it could contradict
        ],
    )
    found = {name: (getattr(report, name).count, getattr(report, name).first) for name in (
        "undecodable_images", "empty_answers", "foreign_answers", "duplicates", "contradictions"
    )}  # fmt: skip
    assert found == {
        "undecodable_images": (1, ("2.png",)),
        "empty_answers": (2, ("q5", "q6")),
        "foreign_answers": (1, ("q9",)),
        "duplicates": (2, ("q1", "q6")),
        "contradictions": (1, ("q3",)),
    }
    assert (report.duplicates.earlier, report.contradictions.earlier) == (("q0", "q5"), ("q0",))
    assert {"finding": "duplicates", "rows": ["q1", "q6"], "earlier": ["q0", "q5"]} in report.summary()["first"]
    assert "duplicates: q1 (earlier: q0), q6 (earlier: q5)" in report.table()["first"]
    assert "undecodable images: 2.png" in report.table()["first"]


def test_findings_are_listed_only_if_there_are_any(tmp_path):
    (tmp_path / "0.png").touch()
    report = checked(tmp_path, [row(0)])
    assert report.summary()["first"] == []
    assert "first" not in report.table()


rows = st.lists(
    st.tuples(
        st.sampled_from(["train", "validation", "test"]),
        st.integers(0, 6),
        st.sampled_from(["What?", "Where?"]),
        st.sampled_from(["a", "b", ""]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(rows=rows)
def test_counts_equal_a_slow_count(tmp_path_factory, rows):
    """Images 5 and 6 have the pixels of 0 and 1."""
    pixels = {5: 0, 6: 1}
    report = checked(
        tmp_path_factory.mktemp("m"),
        [
            row(number, split, image, pixels.get(image), question=question, answer=answer)
            for number, (split, image, question, answer) in enumerate(rows)
        ],
    )
    found = {leak.splits: leak for leak in report.leakage}
    for one, other in combinations(dict.fromkeys(split for split, *_ in rows), 2):
        images = [{image for split, image, *_ in rows if split == name} for name in (one, other)]
        both = images[0] & images[1]
        seen = [{pixels.get(image, image) for image in part} for part in images]
        alike = [{pixels.get(image, image) for image in part - both} for part in images]
        asks = [{(image, question) for split, image, question, _ in rows if split == name} for name in (one, other)]
        touched = tuple(
            sum(pixels.get(image, image) in seen[1 - side] for split, image, *_ in rows if split == name)
            for side, name in enumerate((one, other))
        )
        leak = found.pop((one, other), None)
        if leak is None:
            assert not seen[0] & seen[1]
            continue
        assert leak.shared_images == len(both)
        assert leak.shared_pixels == len(alike[0] & alike[1])
        assert leak.shared_questions == len(asks[0] & asks[1])
        assert leak.touched_questions == touched
    assert not found
    assert report.duplicates.count == len(rows) - len(set(rows))
    assert report.empty_answers.count == sum(answer == "" for *_, answer in rows)


def test_missing_images_and_masks(tmp_path):
    draw(tmp_path / "0.png", 0)
    mask = (Region(name="x", mask="masks/0.png"),)
    report = checked(tmp_path, [row(0, regions=mask), row(1, image=1), row(2, image=1, question="Where?")])
    assert (report.missing_images.count, report.missing_masks.count) == (1, 1)
    with pytest.raises(
        PartialResult, match=r"2 files are missing under the manifest's root(.|\n)*1\.png\n  masks/0\.png"
    ):
        report.raise_for_missing()
    draw(tmp_path / "1.png", 1)
    draw(tmp_path / "masks" / "0.png", 2)
    check_manifest(tmp_path / "m.parquet", None, Silent()).raise_for_missing()


def test_the_command_reports_and_counts_missing_files_as_failures(tmp_path):
    tree = slake(tmp_path)
    path = tmp_path / "slake.parquet"
    import_slake(tree, ImportOptions(language="all"), Silent()).write(path)
    found = CliRunner().invoke(app, ["data", "check", str(path), "--json"])
    assert found.exit_code == 0
    report = json.loads(found.stdout)
    assert (report["questions"], report["empty_answers"], report["images_in_both"]) == (7, 1, {})
    assert report["first"] == [{"finding": "empty_answers", "rows": ["slake-1622"]}]
    (tree / "imgs" / "xmlab1" / "mask.png").unlink()
    failed = CliRunner().invoke(app, ["data", "check", str(path), "--json"])
    assert failed.exit_code == 5
    assert json.loads(failed.stdout)["missing_masks"] == 1
    assert "xmlab1/mask.png" in failed.stderr


@pytest.mark.skipif(REAL_DATA is None, reason="MEDALIGN_REAL_DATA names no folder with vqa_rad/")
def test_the_images_that_vqa_rads_test_split_shares_with_train(tmp_path):
    path = tmp_path / "m.parquet"
    import_vqa_rad(Path(REAL_DATA) / "vqa_rad", ImportOptions(), Silent()).write(path)
    report = check_manifest(path, None, Silent())
    (found,) = report.leakage
    assert found.splits == ("train", "test")
    assert (found.shared_images, found.images) == (202, (313, 203))
    assert (found.shared_pixels, found.shared_questions) == (0, 1)
    assert found.touched_questions == (1063, 446)

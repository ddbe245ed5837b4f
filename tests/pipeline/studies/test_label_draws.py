"""Training sets that are drawn for each seed: whole images, nested sizes, the same for any order of rows."""

from pathlib import Path

import polars as pl
import pytest
from medalign.errors import InputError
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.studies.study_spec import ImageSource, LabelSource, QuestionSource
from medalign.pipeline.studies.units.label_draws import draw_images, draw_labels, read_questions

IMAGES, EACH = 20, 5


@pytest.fixture(scope="module")
def manifest():
    rows = [
        ManifestRow(
            image=f"{image}.png",
            image_hash=f"{image:064x}",
            pixel_hash=f"{image + 100:064x}",
            width=8,
            height=8,
            question_id=f"{image}-{number}",
            question="What is it?",
            answer="noise" if number else None,
            answer_type="open" if number % 2 else "closed",
            split="train" if image < IMAGES - 2 else "test",
            data_use="public",
        )
        for image in range(IMAGES)
        for number in range(EACH)
    ]
    return Manifest.from_rows(rows, Path("images"), "noise")


def labels(manifest, seed, **options):
    source = LabelSource(manifest=Path("m.parquet"), split="train", **options)
    return draw_labels(manifest, source, seed).frame["question_id"].to_list()


def test_a_training_set_has_all_questions_of_one_image_after_the_other(manifest):
    drawn = labels(manifest, 0, labels=10)
    images = [name.split("-")[0] for name in drawn]
    assert [images.count(image) for image in dict.fromkeys(images)] == [4, 4, 2]  # one of five has no answer
    assert len(set(drawn)) == 10
    capped = [name.split("-")[0] for name in labels(manifest, 0, labels=10, per_image=2)]
    assert [capped.count(image) for image in dict.fromkeys(capped)] == [2] * 5
    assert list(dict.fromkeys(capped))[:3] == list(dict.fromkeys(images))


def test_sizes_are_nested_seeds_differ_and_the_order_of_rows_does_not_matter(manifest):
    small, large = labels(manifest, 1, labels=7), labels(manifest, 1, labels=30)
    assert large[:7] == small
    assert set(small) != set(labels(manifest, 2, labels=7))
    shuffled = Manifest(manifest.frame.sample(fraction=1.0, shuffle=True, seed=5), manifest.root, "noise")
    assert labels(shuffled, 1, labels=30) == large


def test_every_image_is_drawn_about_equally_often(manifest):
    counts = dict.fromkeys(map(str, range(IMAGES - 2)), 0)
    for seed in range(60):
        for name in {name.split("-")[0] for name in labels(manifest, seed, labels=12, per_image=4)}:
            counts[name] += 1
    assert sum(counts.values()) == 60 * 3
    assert min(counts.values()) >= 2
    assert max(counts.values()) <= 20  # 10 expected, deviation 3


def test_all_labels_are_the_split_itself(manifest):
    drawn = labels(manifest, 3)
    assert drawn == [f"{image}-{number}" for image in range(IMAGES - 2) for number in range(1, EACH)]


def test_too_few_labels_and_missing_splits_are_named(manifest):
    with pytest.raises(
        InputError, match=r"has 18 questions .*\(at most 1 about one image\), fewer than train\.labels 99"
    ):
        labels(manifest, 0, labels=99, per_image=1)
    with pytest.raises(InputError, match="no split 'dev'; its splits: train"):
        read_questions(manifest, QuestionSource(manifest=Path("m.parquet"), split="dev"))
    with pytest.raises(InputError, match="no question in split test whose answer is report"):
        read_questions(manifest, QuestionSource(manifest=Path("m"), split="test", answer_types=("report",)))
    with pytest.raises(InputError, match="has 18 images, fewer than images 19"):
        draw_images(manifest, ImageSource(manifest=Path("m.parquet"), split="train", images=19), 0)


def test_questions_per_image_are_chosen_by_hash_in_the_order_of_the_manifest(manifest):
    source = QuestionSource(manifest=Path("m.parquet"), split="train", answer_types=("open",), per_image=1)
    frame = read_questions(manifest, source).frame
    assert frame["image_hash"].is_unique().all()
    assert frame.height == IMAGES - 2
    assert frame["question_id"].to_list() == [
        name for name in manifest.frame["question_id"] if name in set(frame["question_id"])
    ]
    assert set(frame["answer_type"]) == {"open"}
    drawn = draw_images(manifest, ImageSource(manifest=Path("m.parquet"), images=6), 4).frame
    assert drawn["image_hash"].n_unique() == drawn.height == 6
    assert not drawn.equals(draw_images(manifest, ImageSource(manifest=Path("m.parquet"), images=6), 5).frame)
    assert pl.Series(drawn["image_hash"]).is_in(manifest.frame["image_hash"].implode()).all()

"""The page of an evaluation: its numbers are those of the saved files, and its pictures those of the run."""

import io
import json
import re
from dataclasses import replace
from statistics import fmean

import numpy as np
import polars as pl
import pytest
from medalign.errors import InputError
from medalign.pipeline.reports.figures.overlays import small_jpeg
from medalign.pipeline.reports.page import render_page
from medalign.pipeline.reports.runs.evaluation_page import evaluation_page
from medalign.pipeline.reports.runs.evaluation_scores import read_scores
from medalign.pipeline.runs.run_inputs import RunInputs
from PIL import Image
from run_folders import QUESTIONS, text_of, write_evaluation


def rendered(page):
    """The page without its figures."""
    return render_page(replace(page, sections=[replace(section, figures=()) for section in page.sections]), {})


REFERENCES = ("yes", "no", "yes", "no", "no", "yes", "no", "yes")
"""Of two questions about each of four images."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_evaluation(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def page(run):
    return evaluation_page(run)


def test_scores_are_the_saved_ones(run, page):
    saved = json.loads((run / "metrics.json").read_text())["scores"]
    rows = {
        (row[0], row[1]): row[2:] for section in page.sections[:2] for table in section.tables for row in table.rows
    }
    for reading in ("strict", "reference"):
        for kind, measured in (("open", "recall"), ("closed", "accuracy")):
            value, _, questions, images = rows[kind, f"{reading} {measured}"]
            mean = saved[reading][f"{kind}_{measured}"]
            assert value == f"{100 * mean['value']:.1f}\xa0%"
            assert (questions, images) == (mean["count"], {"open": 3, "closed": 4}[kind])
    assert "75.0 % (95 % interval" in page.lead.replace("\xa0", " ")
    assert ("choice", "strict accuracy") not in rows


def test_drawn_scores_are_those_of_the_table(run, page):
    scores = next(figure for figure in page.figures if figure.name == "scores")
    table = pl.read_parquet(run / "predictions.parquet")
    for row in scores.table.iter_rows(named=True):
        kind = row["group"].split()[0]
        known = table.filter(pl.col(f"{row['series']}_kind") == kind)[f"{row['series']}_score"]
        assert row["value"] == pytest.approx(100 * fmean(known))
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 100
    modality = next(figure for figure in page.figures if figure.name == "scores-by-modality").table
    closed = modality.filter(pl.col("series") == "closed (accuracy)")
    assert dict(zip(closed["group"], closed["value"], strict=True)) == {"CT": 50.0, "MRI": 100.0}
    assert page.title == "Evaluation of lora on tiny"


def test_intervals_do_not_depend_on_questions_but_on_images(tmp_path):
    """Two equal answers about each image: the interval is that of one, though there are twice as many answers."""
    once = [("closed", "yes", answer, "end") for answer in ("yes", "no", "yes", "yes")]
    widths = []
    for name, questions in (("once", once), ("twice", once * 2)):
        (tmp_path / name).mkdir()
        found = read_scores(write_evaluation(tmp_path / name, questions)).kind("closed", "strict")
        widths.append((found.value, found.low, found.high, found.images))
    assert widths[0] == widths[1]


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (REFERENCES, "+50.0 points compared with always"),
        ((*REFERENCES[:7], "no", *REFERENCES), "significantly more right answers compared with always"),
        (("yes", "no", "no", "no", "yes", "yes", "yes", "yes"), "no significant difference from always"),
    ],
)
def test_the_lead_compares_with_one_constant_answer(tmp_path, answers, verdict):
    """Every image has one question with each reference, so a constant answer is right for half of the questions."""
    references = REFERENCES * (len(answers) // 8)
    questions = [("closed", *pair, "end") for pair in zip(references, answers, strict=True)]
    lead = evaluation_page(write_evaluation(tmp_path, questions)).lead
    assert verdict in lead
    found = re.search(r"\((.\d+\.\d) points, paired by image: 95\xa0% interval (-?[\d.]+) to (-?[\d.]+)\)", lead)
    right = sum(one == other for one, other in zip(references, answers, strict=True))
    gap = f"{100 * right / len(answers) - 50:+.1f}"
    if "significant" not in verdict:
        assert found is None
        assert f"{gap} points" in lead
        return
    assert found[1] == gap
    assert (float(found[2]) > 0) == ("significantly more" in verdict)
    assert "which is right for 50.0\xa0%" in lead


def test_cards_say_what_is_right_wrong_and_empty(page):
    states = {card.name: card.answers[0].state for card in page.samples}
    assert states == {
        "q0": "right",
        "q1": "wrong",
        "q2": "right",
        "q3": "right",
        "q4": "partly right",
        "q5": "empty",
        "q6": "right",
        "q7": "not scored",
    }
    assert [card.name for card in page.samples[:3]] == ["q5", "q1", "q4"]
    assert [card.keys["wrong answers first"] for card in page.samples] == list(range(8))
    assert [card.keys["order of the questions"] for card in page.samples[:3]] == [5, 1, 4]
    by_name = {card.name: card for card in page.samples}
    assert by_name["q3"].labels == ["right", "closed", "cut off", "MRI"]
    assert by_name["q4"].answers[0].numbers == {"strict score": 0.5, "reference score": 0.5}
    assert by_name["q5"].reference == QUESTIONS[5][1]


def test_pictures_are_small_copies_of_the_images(run, page):
    card = next(card for card in page.samples if card.name == "q1")
    with Image.open(io.BytesIO(card.picture)) as small, Image.open(run.parent / "1.png") as image:
        assert small.size == image.size == (16, 24)
        assert small.format == "JPEG"
    assert card.alt == "The image of question q1: CT"


def test_the_notice_names_the_data_use_class(page):
    assert "data-use class is private: they must not be shared without their owner's permission" in page.notice
    assert "8 pictures of 4 images" in page.notice


def test_missing_and_changed_images_are_counted_and_left_out(tmp_path):
    run = write_evaluation(tmp_path)
    (tmp_path / "0.png").unlink()
    Image.new("RGB", (20, 20)).save(tmp_path / "2.png")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    with Image.open(tmp_path / "1.png") as image:
        image.save(tmp_path / "1.png", compress_level=1)  # other bytes, the same pixels
    page = evaluation_page(run)
    assert {card.name for card in page.samples if card.picture is not None} == {"q1", "q5"}
    assert "6 pictures are left out, because of image files:" in page.samples_text
    assert "2 missing" in page.samples_text
    assert "4 changed since the run" in page.samples_text
    assert "2 pictures of 1 image" in page.notice


def test_a_moved_manifest_is_said_and_can_be_given(tmp_path):
    run = write_evaluation(tmp_path)
    (tmp_path / "m.parquet").rename(tmp_path / "moved.parquet")
    page = evaluation_page(run)
    assert all(card.picture is None for card in page.samples)
    assert "the manifest cannot be read" in page.samples_text
    assert "m.parquet does not exist" in page.samples_text
    assert "data-use class is not known" in page.notice
    given = RunInputs(manifest=tmp_path / "moved.parquet")
    assert all(card.picture is not None for card in evaluation_page(run, given).samples)
    (run / "inputs.json").unlink()
    assert "does not record where its manifest is" in evaluation_page(run).samples_text
    with pytest.raises(InputError, match=r"m\.parquet does not exist"):
        evaluation_page(run, RunInputs(manifest=tmp_path / "m.parquet"))


def test_files_of_two_runs_are_refused(run, tmp_path):
    changed = [("closed", "yes", "no", "end"), *QUESTIONS[1:]]
    other = write_evaluation(tmp_path, changed)
    (other / "metrics.json").write_text((run / "metrics.json").read_text())
    with pytest.raises(InputError, match=r"has 0\.75 as the strict score of closed questions, but .* has 0\.5"):
        evaluation_page(other)


def test_text_of_answers_is_only_text(tmp_path):
    hostile = "</article><script>alert(1)</script><img src=//x.example onerror=alert(1)>\x1b]0;x\x07\u202e\x00"
    run = write_evaluation(tmp_path, [("open", hostile, hostile, "end")] * 4)
    html = rendered(evaluation_page(run))
    assert html.count("<script>") == 1
    assert html.count("</article>") == html.count('<article class="card"') == 4
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 8
    assert not re.search("[\x00\x07\x1b\u202e]", html)
    assert not re.search(r'src="(?!data:)', html)
    assert "//x.example" in text_of(html)


def test_fifty_large_images_stay_below_ten_megabytes(tmp_path):
    """Noise, which JPEG cannot compress, in place of 50 images of 1024 pixels: the page has 320 pixels of each."""
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    largest = len(small_jpeg(Image.fromarray(noise), 320))
    assert 50 * largest * 4 / 3 < 8e6


def test_an_interval_without_width_is_not_shown_and_the_page_says_why(tmp_path):
    """The answers about CT are right in every image, those about MRI in one of two."""
    questions = [("closed", "yes", answer, "end") for answer in ("yes", "yes", "yes", "no")]
    page = evaluation_page(write_evaluation(tmp_path, questions))
    numbers = next(section for section in page.sections if section.title == "Numbers of all groups")
    cells = {row[0]: row[3] for table in numbers.tables if table.columns[0] == "modality" for row in table.rows}
    assert cells["CT"] == "\N{EN DASH}"
    assert cells["MRI"].endswith("\N{DOUBLE DAGGER}")
    said = " ".join(numbers.text)
    assert "fewer than 10 images" in said
    assert "all images have the same score" in said
    figure = next(figure for figure in page.figures if figure.name == "scores-by-modality")
    assert dict(figure.table.select("group", "low").iter_rows())["CT"] is None
    assert "the same score for all images" in figure.caption


def test_the_page_has_the_warnings_of_the_metrics_as_sentences(tmp_path):
    run = write_evaluation(tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"guesses": ["the template is a guess (docs/prompts.md)"]}))
    warnings = next(section for section in evaluation_page(run).sections if section.title == "Warnings").text
    assert warnings[0] == "The template is a guess."
    assert any(line.startswith("The questions are about 4 images, fewer than 10") for line in warnings)
    assert not any("docs/" in line for line in warnings)

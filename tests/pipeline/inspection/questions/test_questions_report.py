"""Attention and answers of arms: measured by hand, drawn through views, and shown with the worst change first."""

import io
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from medalign.pipeline.data.importers.common import read_images
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.data.regions import Region
from medalign.pipeline.inspection.questions.answer_changes import compare_answers
from medalign.pipeline.inspection.questions.asked_questions import TeacherMaps, asked_questions, cell_name
from medalign.pipeline.inspection.questions.attention_measures import measure_attention, with_mean
from medalign.pipeline.inspection.questions.question_capture import ArmQuestions, capture_questions
from medalign.pipeline.inspection.questions.questions_report import report_questions
from medalign.pipeline.reports.figures.overlays import map_views
from medalign.pipeline.reports.page import Page, render_page
from medalign.progress import Silent
from medalign.student.decoding.generation import Answer
from medalign.student.inputs.image_processing import CLIP_MEAN, CLIP_STD, StudentImages
from medalign.student.inputs.views import ImageLayout, View
from medalign.student.inspection.question_attention import question_attention
from medalign.student.loading.student_loading import load_student
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from PIL import Image
from students import write_images

GRID = PatchGrid(3, 3)
IMAGES = StudentImages(size=24, grid=GRID, mean=CLIP_MEAN, std=CLIP_STD)
COUNT = 12


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Twelve images, 24 x 12 pixels and padded above and below; two questions name the region at the top left."""
    folder = tmp_path_factory.mktemp("asked")
    names = [path.name for path in write_images(folder / "images", [(24, 12)] * COUNT)]
    columns = read_images(folder / "images", names, Silent()).columns
    rows = [
        ManifestRow(
            question_id=f"q{number}",
            question="Is there a nodule?" if number < 2 else "Is it a scan?",
            answer="yes" if number < COUNT - 1 else None,
            answer_type="closed",
            split="test",
            data_use="public",
            regions=(Region(name="Nodule", box=(0, 0, 8, 4)),) if number < 3 else (),
            **columns[names[number]],
        )
        for number in range(COUNT)
    ]
    return Manifest.from_rows(rows, folder / "images", "asked")


def arm(attention, texts, losses):
    answers = tuple(Answer(text=text, finish="end" if text else "empty", forwards=1) for text in texts)
    return ArmQuestions(attention=attention.astype(np.float32), answers=answers, loss_lm=tuple(losses))


@pytest.fixture(scope="module")
def parts():
    """A base and an adapter with two layers. The adapter looks at cell 3, where the region is; cell 8 is a sink."""
    random = np.random.default_rng(0)
    base = random.uniform(0.01, 0.02, (COUNT, 2, 9))
    base[:, 0, 8] = 0.5
    adapter = base.copy()
    adapter[:, 1, 3] = 0.3
    losses = [*np.linspace(1, 2, COUNT - 1), None]
    texts = ["no", "yes", "", *["yes"] * (COUNT - 3)]
    changed = ["yes", "no", "yes", *["yes"] * (COUNT - 3)]
    return {
        "base": arm(base, texts, losses),
        "lora": arm(adapter, changed, [*[loss - 0.5 for loss in losses[:-1]], None]),
    }


def teacher():
    class EveryImage(dict):
        def __missing__(self, image_hash):
            return torch.arange(9.0)

    return TeacherMaps(E_a=EveryImage(), grid=GRID, geometry="pad")


def test_measures_by_hand(asked, parts):
    questions = asked_questions(asked, IMAGES)
    assert questions.with_regions == [0, 1]
    # The square is 24 pixels high and the image begins at row 6: cells 0 to 2 and 6 to 8 are a quarter image.
    assert questions.coverage(0).tolist() == pytest.approx([0.25, 0, 0, 0.25, 0, 0, 0, 0, 0])
    assert not questions.padding().any()
    found = measure_attention(questions, parts, teacher(), Silent())
    maps = with_mean(parts["lora"].attention)
    torch.testing.assert_close(maps[:, 2], (maps[:, 0] + maps[:, 1]) / 2)
    lora = found.arms["lora"]
    assert lora.sinks.nonzero().tolist() == [[0, 8], [1, 3], [2, 8]]
    by_hand = [0.25 * float(maps[index, 1, 0] + maps[index, 1, 3]) / float(maps[index, 1].sum()) for index in (0, 1)]
    mass = lora.regions.at(1, "mass")
    assert mass.value == pytest.approx(sum(by_hand) / 2)
    assert mass.change.mean == pytest.approx(mass.value - found.arms["base"].regions.at(1, "mass").value)
    assert lora.regions.chance["mass"] == pytest.approx(0.5 / 9)
    assert found.teacher.at(0, "mass").value == pytest.approx(0.25 * (0 + 3) / 36)
    rows = found.table.filter(arm="lora", map="layer 1")
    assert rows["mass"].to_list() == [pytest.approx(by_hand[0]), pytest.approx(by_hand[1]), *[None] * (COUNT - 2)]
    assert rows["share_sinks"].to_list() == pytest.approx((maps[:, 1, 3] / maps[:, 1].sum(-1)).tolist())
    assert found.table["map"].unique(maintain_order=True).to_list() == ["layer 0", "layer 1", "mean", "teacher"]


def test_changes_of_answers(asked, parts):
    found = compare_answers(asked, parts)
    lora = found.summaries["lora"]
    assert dict(lora.states) == {"right": 10, "partly right": 0, "wrong": 1, "empty": 0, "not scored": 1}
    assert dict(found.summaries["base"].states)["empty"] == 1
    assert (lora.better, lora.worse) == (2, 1)
    assert lora.score_change.mean == pytest.approx(1 / 11)
    assert lora.loss_change.mean == pytest.approx(-0.5)
    rows = found.table.filter(arm="lora")
    assert rows["score_change"].to_list()[:4] == [1, -1, 1, 0]
    assert rows["loss_change"].to_list()[-1] is None


def test_the_report_has_the_worst_change_first(asked, parts):
    questions = asked_questions(asked, IMAGES)
    shown = ["q0", "q1", "q5"]
    report = report_questions(questions, shown, parts, teacher(), (1,), Silent())
    assert [sample.name for sample in report.samples] == ["q1", "q5", "q0"]
    first = report.samples[0]
    assert "changed for the worse" in first.labels
    assert {answer.name: answer.state for answer in first.answers} == {"base": "right", "lora": "wrong"}
    titles = list(first.keys)
    assert titles[:2] == ["changed for the worse first", "changed for the better first"]
    better = sorted(report.samples, key=lambda sample: sample.keys[titles[1]])
    assert [sample.name for sample in better] == ["q0", "q5", "q1"]
    with Image.open(io.BytesIO(first.picture)) as picture:
        assert picture.format == "JPEG"
        assert picture.width == 320
    assert [card.name for card in report.cards] == ["sample-001", "sample-002", "sample-003"]
    assert report.cards[0].table["panel"].to_list() == [
        "image", "teacher (E_a)", "base, layer 1", "lora, layer 1", "base, mean", "lora, mean",
    ]  # fmt: skip
    names = [figure.name for section in report.sections for figure in section.figures]
    assert names == [f"attention-{name}" for name in ("regions", "shares", "mean", "examples", "layers")]
    json.dumps(report.values, allow_nan=True)
    assert set(report.tables) == {"attention", "answers"}
    assert any("lora: 10 of 11" in line for line in report.sentences)
    page = render_page(Page(title="t", lead="l", samples=report.samples), {})
    assert page.index('class="about">q1') < page.index('class="about">q5') < page.index('class="about">q0')


def test_without_regions_store_or_adapters_the_rest_remains(asked, parts):
    none = pl.Series("regions", [[]] * COUNT, dtype=asked.frame.schema["regions"])
    plain = replace(asked, frame=asked.frame.with_columns(none))
    report = report_questions(asked_questions(plain, IMAGES), ["q2", "q1"], {"base": parts["base"]}, None, (), Silent())
    assert report.sections[0].figures[0].name == "attention-shares"
    assert [sample.name for sample in report.samples] == ["q2", "q1"], "an empty answer is the worst"
    assert report.samples[0].answers[0].state == "empty"
    assert next(iter(report.samples[0].keys)) == "wrong answers first"
    nothing = asked_questions(replace(asked, frame=asked.frame.head(0)), IMAGES)
    empty = {"base": arm(np.zeros((0, 2, 9)), [], [])}
    assert report_questions(nothing, [], empty, None, (), Silent()).sections == ()


def test_maps_are_drawn_through_every_view():
    """Two views over one image; the cell of each token is drawn where its view is."""
    layout = ImageLayout(
        views=(
            View(rows=1, columns=2, box=(0.0, 0.0, 24.0, 12.0), tokens=(2, 0)),
            View(rows=2, columns=1, box=(12.0, 0.0, 12.0, 12.0), tokens=(1, 3)),
        ),
        tokens=5,
    )
    first, second = map_views(layout, [0.0, 0.1, 0.2, 0.3, 0.4])
    assert (first.values, first.box) == ([0.2, 0.0], (0.0, 0.0, 24.0, 12.0))
    assert (second.values, second.box) == ([0.1, 0.3], (12.0, 0.0, 12.0, 12.0))
    assert cell_name(layout, 3) == "view 2, row 2, column 1"
    assert cell_name(layout, 4) == "token 5, which has no place"


def test_capture_reads_and_answers_in_order(asked, student_folder):
    from medalign.pipeline.data.samples import manifest_samples

    student = load_student(student_folder)
    few = replace(asked, frame=asked.frame.tail(3))
    part = capture_questions(student, few, batch_size=2, max_new_tokens=3, progress=Silent())
    maps = question_attention(student, manifest_samples(few))
    torch.testing.assert_close(torch.from_numpy(part.attention), maps, rtol=1e-4, atol=1e-6)
    assert len(part.answers) == 3
    assert [loss is None for loss in part.loss_lm] == [False, False, True]
    none = capture_questions(
        student, replace(asked, frame=asked.frame.head(0)), batch_size=2, max_new_tokens=3, progress=Silent()
    )
    assert none.attention.shape == (0, 4, 9)

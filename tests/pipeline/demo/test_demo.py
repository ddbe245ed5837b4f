"""The demo: its packed training material, its assets, and a run of two steps."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from medalign.cli import app
from medalign.errors import InputError
from medalign.pipeline.data.phantoms import ORGAN_LABELS
from medalign.pipeline.demo.cell_targets import cell_targets
from medalign.pipeline.demo.corpus import NO_PHRASE, SLOTS, draw_corpus
from medalign.pipeline.demo.demo import ASSETS, DemoPlan, run_demo
from medalign.pipeline.demo.demo_changes import about_similarity, measure_tables, verdict, whether_it_worked
from medalign.pipeline.demo.demo_figures import _with_lesions
from medalign.pipeline.demo.demo_page import _about_cards, _largest_changes, demo_page
from medalign.pipeline.demo.demo_results import MEASURES, SIMILARITY, Findings, _sentence
from medalign.pipeline.demo.demo_table import show_demo
from medalign.pipeline.demo.pretrain_student import pretrain_student
from medalign.pipeline.demo.pretrain_teacher import pretrain_teacher
from medalign.pipeline.demo.question_packing import Turn, packed_loss
from medalign.pipeline.evaluation.statistics import Difference
from medalign.progress import Silent
from medalign.student.families.bases import load_llava
from medalign.student.inputs.image_processing import CLIP_MEAN, CLIP_STD
from medalign.student.metrics.region_attention import region_coverage
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.teachers.teacher_loading import load_teacher
from typer.testing import CliRunner

TINY = DemoPlan(
    seed=0, phantoms=12, anchors=6, align_steps=1, minimum_r2=-1e6, minimum_skill=None, steps=2, batch_size=4
)


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture(scope="module")
def corpus():
    return draw_corpus(5, 8, CLIP_MEAN, CLIP_STD, Silent())


def test_packed_questions_cost_what_lone_ones_do(corpus):
    llava = load_llava(ASSETS / "phantom-student", "float32").eval()
    bos, image = llava.config.text_config.bos_token_id, llava.config.image_token_id
    turns = [
        [Turn(prompt=[10, 11], answer=[12, 2]), Turn(prompt=[13], answer=[14, 15, 2])],
        [Turn(prompt=[20, 21, 22], answer=[2])],
    ]
    with torch.no_grad():
        tower = llava.model.vision_tower(corpus.pixels[:2], output_hidden_states=True)
        per_token, per_answer = packed_loss(llava, tower.hidden_states[-1][:, 1:], turns)
        total, count, alone = 0.0, 0, []
        for row, asked in enumerate(turns):
            for turn in asked:
                ids = torch.tensor([[bos, *[image] * 64, *turn.prompt, *turn.answer]])
                labels = torch.full_like(ids, -100)
                labels[0, -len(turn.answer) :] = torch.tensor(turn.answer)
                loss = llava(input_ids=ids, pixel_values=corpus.pixels[row : row + 1], labels=labels).loss
                total, count = total + loss.item() * len(turn.answer), count + len(turn.answer)
                alone.append(loss.item())
    assert per_token.item() == pytest.approx(total / count, abs=1e-4)
    assert per_answer.item() == pytest.approx(np.mean(alone), abs=1e-4)


def test_slots_say_what_captions_say(corpus):
    names = list(SLOTS)
    for slots, questions, phantom in zip(corpus.slots, corpus.questions, corpus.phantoms, strict=True):
        caption = questions[0].answer
        assert questions[0].question_type == "caption"
        kind = SLOTS["lesion"][slots[names.index("lesion")]]
        assert (kind in caption) if phantom.lesions else (kind == "none" and "no lesion" in caption)
        organ = next(iter(phantom.looks))
        texture = SLOTS[f"{organ} texture"][slots[names.index(f"{organ} texture")]]
        assert f"and {texture}" in next(part for part in caption.split(". ") if part.startswith(organ))
        heart = slots[names.index("heart size")]
        assert (heart == NO_PHRASE) == (phantom.modality == "CT")


def test_assets_are_small_and_load_strictly():
    size = sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file())
    assert size <= 12_000_000
    teacher = load_teacher("phantom-tiny", ASSETS / "phantom-teacher.safetensors")
    assert str(teacher.spec.grid) == "12x12"
    assert "Apache-2.0" in (ASSETS / "README.md").read_text()


def test_making_assets_lowers_its_losses(corpus):
    """A few steps of the very functions that made the shipped files."""
    teacher = pretrain_teacher(corpus, steps=12, seed=0, progress=Silent())
    assert teacher.accuracy(corpus).from_patches > 0.5
    base = pretrain_student(corpus, tower_steps=2, steps=5, seed=0, progress=Silent())
    assert base.final_loss < 4.25  # log of the vocabulary's size
    assert 0 < base.tower_accuracy(corpus).from_patches < 1


def test_cell_targets_are_the_areas_and_looks_of_what_a_cell_shows(corpus):
    targets = cell_targets(corpus, PatchGrid(8, 8))
    torch.testing.assert_close(targets.organs.sum(-1), torch.ones(8, 64))
    torch.testing.assert_close(targets.lesions.sum(-1), torch.ones(8, 64))
    for index, phantom in enumerate(corpus.phantoms):
        side = max(phantom.shape)
        for name, mask in phantom.organs.items():
            area = targets.organs[index, :, ORGAN_LABELS[name]]
            assert float(area.sum()) * side**2 / 64 == pytest.approx(mask.sum(), rel=1e-4)  # cells of equal area
            if name in phantom.looks:
                looks = targets.looks[index][area > 0.5]
                drawn = phantom.looks[name]
                assert set(looks[:, 0].tolist()) <= {int(drawn.brightness == "bright")}
                assert set(looks[:, 1].tolist()) <= {int(drawn.texture == "coarse")}
        kind = SLOTS["lesion"].index(phantom.lesions[0].kind if phantom.lesions else "none")
        seen = region_coverage(torch.from_numpy(phantom.lesion_mask), PatchGrid(8, 8)) > 0
        assert set((targets.lesions[index] > 0).nonzero()[:, 1].tolist()) <= {0, kind}
        assert torch.equal(targets.lesions[index, :, 0] < 1, seen)


@pytest.fixture(scope="module")
def tiny_demo(tmp_path_factory):
    """A demo of two steps, and the commands that it names."""
    notes = Notes()
    report = run_demo(tmp_path_factory.mktemp("tiny") / "demo", 0, notes, plan=TINY)
    return report, [note.strip() for note in notes.said if note.strip().startswith("$ medalign")]


def test_two_steps_of_the_demo_and_its_second_start(tiny_demo, capsys):
    report, commands = tiny_demo
    assert [command.split()[2:4] for command in commands] == [
        ["data", "phantom"],
        ["teacher", "extract"],
        ["student", "align"],
        *[["student", "train"], ["student", "evaluate"]] * 3,
    ]
    show_demo(report, None, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert set(shown["arms"]) == {"LoRA", "MEDALIGN", "align + LoRA"}
    assert shown == json.loads((report.out / "demo.json").read_text())
    assert "MEDALIGN compared with LoRA" in shown["sentence"]
    assert 0 < shown["arms"]["LoRA"]["reference"]["mass"]["chance"] < 0.2
    again = Notes()
    second = run_demo(report.out, 0, again, plan=TINY)
    assert second.findings.sentence == report.findings.sentence
    assert not any(word in note for note in again.said for word in ("student train", "student align"))
    show_demo(second, None, as_json=False)
    assert "held-out phantoms" in capsys.readouterr().out


def test_the_report_has_the_numbers_of_the_demo(tiny_demo):
    report, _ = tiny_demo
    page = demo_page(report)
    table, changes = page.sections[1].tables
    assert page.sections[1].text[0] == whether_it_worked(report)
    closed = next(row for row in table.rows if row[0] == "closed accuracy (strict)")
    assert [row[0] for row in changes.rows] == [row[0] for row in table.rows]
    assert closed[1:4] == [f"{arm.mean('closed'):.3f}" for arm in report.arms.values()]
    gaps = report.findings.differences["align + LoRA"]
    helped = (gaps["closed"].low > 0 or gaps["open"].low > 0) and min(gaps["closed"].high, gaps["open"].high) > 0
    assert page.lead.startswith(whether_it_worked(report))
    answer = page.lead.partition(" answered better")[0]
    assert ("align + LoRA" in answer and not answer.startswith("No:")) == helped
    figures = {figure.name: figure for figure in page.figures}
    drawn = figures["attention"].table.filter(pl.col("panel") == "MEDALIGN")["views"].to_list()
    kept = report.arms["MEDALIGN"].attention
    assert all(any(np.allclose(views[0]["values"], row, atol=1e-6) for row in kept) for views in drawn)
    values = figures["losses"].table.filter((pl.col("series") == "MEDALIGN") & (pl.col("panel") == "L_vis"))["y"]
    assert f"MEDALIGN L_vis {values[0]:.3g} to {values[-1]:.3g}" in figures["losses"].caption
    assert "on images that it trains on" in figures["losses"].caption
    losses = figures["losses"].table.filter(pl.col("series") == "MEDALIGN")
    assert set(losses["panel"]) == {"answer loss, nats per token", "L_vis", "L_att"}
    gains = [card.keys["worst change first"] for card in page.samples]
    worse, better = ([gain for gain in gains if sign * gain > 0] for sign in (-1, 1))
    assert gains == [*sorted(worse), *sorted(better, reverse=True)]


def test_the_evaluation_that_the_demo_names_gives_its_numbers(tiny_demo, tmp_path):
    """The printed line, with another --out, scores the same questions with the same answers as the table's."""
    report, commands = tiny_demo
    line = next(command for command in commands if "student evaluate" in command)
    arguments = shlex.split(line.removeprefix("$ medalign "))
    answers = Path(arguments[-1])
    arguments[-1] = str(tmp_path / "out")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    ours, named = (json.loads((folder / "metrics.json").read_text()) for folder in (answers, tmp_path / "out"))
    assert named["scores"] == ours["scores"]
    table = report.arms["LoRA"]
    assert named["scores"]["strict"]["closed_accuracy"]["value"] == pytest.approx(table.mean("closed"))
    assert named["run"]["questions"] == len(table.images)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and has no demo"):
        run_demo(tmp_path, 0, Silent(), plan=TINY)
    (tmp_path / "demo-plan.json").write_text("{}")
    with pytest.raises(InputError, match="another plan"):
        run_demo(tmp_path, 0, Silent(), plan=TINY)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_examples_of_attention_are_about_lesions():
    questions = [
        "What is this?",
        "Is the lesion dark?",
        "Where is the lesion?",
        "How many lesions?",
        "What is this?",
        "Where?",
    ]
    images = ["a", "a", "a", "b", "c", "d"]
    samples = [
        SimpleNamespace(question=question, images=[SimpleNamespace(image_hash=image)])
        for question, image in zip(questions, images, strict=True)
    ]
    mass = [0.1, 0.1, 0.1, 0.1, 0.1, float("nan")]  # the last image has no lesion
    report = SimpleNamespace(arms={"LoRA": SimpleNamespace(values={"mass": mass})})
    assert _with_lesions(report, samples) == [2, 3, 4]


def changed(medalign=None, align=None):
    """A demo in which each of these measures is significantly better (1) or worse (-1) than with LoRA."""

    def gaps(directions):
        signs = {m.name: directions.get(m.name, 0) * (1 if m.better == "higher" else -1) for m in MEASURES}
        return {name: Difference(mean=sign, low=sign - 0.5, high=sign + 0.5) for name, sign in signs.items()}

    names = [*(measure.name for measure in MEASURES), *SIMILARITY]
    titles = ("LoRA", "MEDALIGN", "align + LoRA")
    arms = {title: SimpleNamespace(mean=dict.fromkeys(names, 0.25).get) for title in titles}
    differences = {"MEDALIGN": gaps(medalign or {}), "align + LoRA": gaps(align or {})}
    sentence = _sentence(arms, differences["MEDALIGN"], "LoRA", "MEDALIGN")
    return SimpleNamespace(arms=arms, findings=Findings(baseline="LoRA", differences=differences, sentence=sentence))


def test_each_arm_has_its_own_verdict():
    report = changed(medalign={"loss_vis": 1, "kl": 1, "open": -1}, align={"closed": 1, "open": 1})
    words = {row[0]: (row[2], row[4]) for row in measure_tables(report)[1].rows}
    assert words["closed accuracy (strict)"] == ("no significant difference", "better")
    assert words["open recall (strict)"] == ("worse", "better")
    assert words["L_vis"] == ("better", "no significant difference")
    lead, state = verdict(report)
    assert state == "good"
    assert lead.startswith("Partly: align + LoRA answered better than LoRA; MEDALIGN did not")
    for name in ("MEDALIGN adds", "L_vis compares", "align + LoRA is"):  # the numbers come after the meanings
        assert lead.index(name) < lead.index("MEDALIGN against LoRA:")
    assert "MEDALIGN's losses fell as intended" in lead
    assert "Significantly worse: open recall (strict)" in report.findings.sentence


@pytest.mark.parametrize(
    ("align", "starts"),
    [
        ({}, "No: neither"),
        ({"closed": 1, "open": -1}, "No: neither"),
        ({"open": 1}, "Partly: align + LoRA answered better than LoRA"),
    ],
)
def test_a_gain_that_another_score_pays_for_is_none(align, starts):
    lead, state = verdict(changed(medalign={"loss_vis": 1}, align=align))
    assert lead.startswith(starts)
    assert state == ("good" if starts.startswith("Partly") else "bad")
    assert "did not all fall as intended" in lead


@pytest.mark.parametrize(
    ("medalign", "align", "answer"),
    [
        ({}, {}, "No: neither MEDALIGN nor align + LoRA answered better than LoRA."),
        ({"closed": 1}, {"open": 1}, "Yes: MEDALIGN and align + LoRA answered better than LoRA."),
        ({}, {"open": 1}, "Partly: align + LoRA answered better than LoRA; MEDALIGN did not."),
        (
            {"loss_vis": 1, "kl": 1},
            {"open": 1},
            "Partly: align + LoRA answered better than LoRA; MEDALIGN did not, although its losses fell as intended.",
        ),
        ({"closed": 1}, {"closed": 1, "open": -1}, "Partly: MEDALIGN answered better than LoRA; align + LoRA did not."),
    ],
)
def test_whether_it_worked_is_answered_in_one_sentence(medalign, align, answer):
    assert whether_it_worked(changed(medalign=medalign, align=align)) == answer


@pytest.mark.parametrize(("agreement", "paragraphs"), [(0, 1), (-1, 1), (1, 0)])
def test_a_better_l_vis_without_better_agreement_is_explained(agreement, paragraphs):
    assert len(about_similarity(changed(medalign={"loss_vis": 1, "agreement": agreement}))) == paragraphs
    assert about_similarity(changed(medalign={"agreement": agreement})) == []


def test_only_changes_of_different_sizes_have_largest_ones():
    flips, graded = [0.0, 1.0, -1.0, 1.0, -1.0], [0.5, 1.0, -1.0, 0.0]
    assert "Here are the first 12 of each" in _about_cards(flips)
    assert "largest" not in _about_cards(flips)
    assert "those with the largest changes" in _about_cards(graded)
    assert _largest_changes(flips) == [2, 4, 1, 3]  # the first of each, in the order of the questions
    assert _largest_changes(graded) == [2, 1, 0]

"""A grounding run: values by hand and by loops, habits held apart, killed and resumed, two students compared."""

import json

import numpy as np
import polars as pl
import pytest
import release_trees
import torch
from medalign.errors import InputError
from medalign.pipeline.data.annotations.region_questions import coverage_of, grounded_questions
from medalign.pipeline.data.importers import ImportOptions, import_slake
from medalign.pipeline.data.importers.common import read_images
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.data.phantoms.phantom_masks import load_masks
from medalign.pipeline.data.regions import Region
from medalign.pipeline.evaluation.grounding import ground as module
from medalign.pipeline.evaluation.grounding.attention_maps import MAPS_FILE
from medalign.pipeline.evaluation.grounding.ground import GroundingRequest, read_grounding, run_grounding
from medalign.pipeline.evaluation.grounding.grounding_table import show_grounding
from medalign.pipeline.evaluation.grounding.layer_statistics import ALL_LAYERS, compare_layers, summarize_layers
from medalign.pipeline.evaluation.grounding.measures import draw_partners, measure_layers
from medalign.pipeline.reports.runs.grounding_page import grounding_page
from medalign.progress import Silent
from medalign.student.inspection.question_attention import question_attention
from medalign.student.loading.student_loading import load_student
from medalign.student.metrics.region_attention import attention_mass_inside, region_coverage
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from students import write_images

LAYERS = 4


def box(name, *sides):
    return Region(name=name, box=sides)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """Two images with boxes as NIH's, and all the ways in which a question can have none."""
    folder = tmp_path_factory.mktemp("boxed")
    names = [path.name for path in write_images(folder / "images", [(16, 16), (32, 16), (16, 16)])]
    columns = read_images(folder / "images", names, Silent()).columns
    nodule, mass = box("Nodule", 0, 0, 8, 8), box("Mass", 8, 0, 8, 16)
    asked = [
        ("Is there a nodule?", 0, (nodule, mass)),
        ("Is there a mass?", 0, (nodule, mass)),
        ("Where is the nodule?", 1, (box("Nodule", 16, 0, 16, 8),)),
        ("Is there a hernia?", 1, (nodule,)),
        ("Is there a nodule?", 2, ()),
        ("Is a nodule round?", None, ()),
    ]
    rows = [
        ManifestRow(
            question_id=f"q{number}",
            question=question,
            answer="yes",
            answer_type="closed",
            split="test",
            data_use="public",
            regions=regions,
            **({} if image is None else columns[names[image]]),
        )
        for number, (question, image, regions) in enumerate(asked)
    ]
    path = folder / "m.parquet"
    Manifest.from_rows(rows, folder / "images", "boxed").write(path)
    return path


def test_a_worked_example(boxed):
    """Boxes on a 2 x 2 grid and attention made up by hand, one layer.

    q0: the nodule's box is cell 0 of a square image. q1: the mass is the right half, cells 1 and 3. q2: on the wide
    image (padded by 8 pixels above and below) the box at the top right is the lower half of cell 1.
    """
    questions = grounded_questions(Manifest.read(boxed), (), None)
    assert questions.manifest.frame["question_id"].to_list() == ["q0", "q1", "q2"]
    assert questions.left_out == {"mentioning no region of the image": 1, "about images without regions": 2}
    coverage = coverage_of(questions, PatchGrid(2, 2))
    assert coverage.tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0.5, 0, 0]]
    attention = np.array([[[0.4, 0.1, 0.1, 0.2]], [[0.1, 0.1, 0.6, 0.0]], [[0.2, 0.6, 0.1, 0.1]]], dtype=np.float32)
    table = measure_layers(attention, coverage, questions.names, questions.manifest)
    found = {
        name: [round(value, 6) for value in table[name].fill_null(-1)]
        for name in table.columns[9:]
        if name != "regions"
    }
    assert found == {
        "area": [0.25, 0.5, 0.125],
        "layer": [0, 0, 0],
        "mass": [0.5, 0.125, 0.3],
        "mass_chance": [0.25, 0.5, 0.125],
        # q0 under q2's attention, q2 under q0's; no other image is asked about its mass.
        "mass_other": [0.2, -1, 0.0625],
        "pointing": [1, 0, 1],
        "pointing_chance": [0.25, 0.5, 0.25],
        "pointing_other": [0, -1, 0],
        # Half of the attention: cell 0; cell 2; cell 1.
        "energy_iou": [1, 0, 0.5],
        "energy_iou_chance": found["energy_iou_chance"],
        "energy_iou_other": [0, -1, 0],
    }
    findings = summarize_layers(table)
    assert findings.images == 2
    assert findings.at(0, "mass").value == pytest.approx((0.5 + 0.125 + 0.3) / 3)
    assert findings.at(0, "mass").other == pytest.approx((0.2 + 0.0625) / 2)
    assert findings.at(0, "mass").beyond_other.mean == pytest.approx((0.5 + 0.3 - 0.2 - 0.0625) / 2)
    assert findings.chance["mass"] == pytest.approx(0.875 / 3)


def test_habits_are_those_of_the_same_modality(boxed):
    questions = grounded_questions(Manifest.read(boxed), (), None)
    attention = np.full((3, 1, 4), 0.25, dtype=np.float32)
    coverage = coverage_of(questions, PatchGrid(2, 2))
    for modalities, others in ((("X-ray", "X-ray", "CT"), [None] * 3), (("CT", "X-ray", "CT"), [0.25, None, 0.125])):
        frame = questions.manifest.frame.with_columns(pl.Series("modality", modalities))
        manifest = Manifest(frame, questions.manifest.root, "boxed")
        table = measure_layers(attention, coverage, questions.names, manifest)
        assert table["mass_other"].to_list() == others


def test_partners_are_about_the_same_regions_on_other_images():
    names = [("liver",), ("liver",), ("heart",), ("liver",), ("heart", "liver"), ("liver",)]
    images = ["a", "a", "a", "b", "b", "c"]
    partners = draw_partners(names, images, partners=4)
    assert [set(row.tolist()) for row in partners] == [{3, 5}, {3, 5}, {-1}, {0, 1, 5}, {-1}, {0, 1, 3}]
    many = draw_partners([("x",)] * 50, [str(number) for number in range(50)])
    assert all(len(set(row.tolist())) == 8 for row in many)
    assert torch.equal(many, draw_partners([("x",)] * 50, [str(number) for number in range(50)]))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    make_phantoms(folder / "p", images=10, seed=1, progress=Silent())
    return folder / "p" / "manifest.parquet"


def request(student, manifest, **changes):
    values = {"split": "train", "batch_size": 4, "device": "cpu", "regions": ("lesion",), **changes}
    return GroundingRequest(student=student, manifest=manifest, **values)


@pytest.fixture(scope="module")
def finished(student_folder, phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, run_grounding(request(student_folder, phantoms), out, Silent())


def test_a_run_on_phantoms_equals_their_masks_question_by_question(student_folder, phantoms, finished):
    out, report = finished
    table = pl.read_parquet(out / "grounding.parquet")
    maps = np.load(out / MAPS_FILE)
    manifest = Manifest.read(phantoms).split("train")
    student = load_student(student_folder)
    samples = {sample.question_id: sample for sample in module.manifest_samples(manifest)}
    order = table.filter(pl.col("layer") == 0)["question_id"].to_list()
    assert maps.shape == (len(order), LAYERS, 9)
    assert len(order) == report.questions > 20
    for index in range(0, len(order), 7):
        alone = question_attention(student, [samples[order[index]]])[0]
        np.testing.assert_allclose(maps[index], alone.numpy(), atol=1e-6)
        (image,) = samples[order[index]].images
        lesions = load_masks(phantoms.parent / "masks", image.path.stem).lesions
        coverage = region_coverage(torch.from_numpy(lesions), PatchGrid(3, 3))
        expected = attention_mass_inside(alone, coverage.expand_as(alone))
        rows = table.filter(pl.col("question_id") == order[index]).sort("layer")
        np.testing.assert_allclose(rows["mass"].to_numpy(), expected.numpy(), atol=1e-5)
    for layer in range(LAYERS):
        mean = table.filter(pl.col("layer") == layer)["pointing"].mean()
        assert report.findings.at(layer, "pointing").value == pytest.approx(mean)
    over_all = table.group_by("question_id").agg(pl.col("mass").mean())["mass"].mean()
    assert report.findings.at(ALL_LAYERS, "mass").value == pytest.approx(over_all)
    saved = json.loads((out / "grounding.json").read_text())
    assert saved["questions"] == report.questions
    assert len(saved["layers"]) == 3 * (LAYERS + 1)
    assert set(saved["left_out"]) <= {"about images without these regions", "about images without regions"}


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_and_ends_the_same(student_folder, phantoms, finished, tmp_path, monkeypatch):
    asked = []

    def dying(student, samples, *_):
        if len(asked) == 2:
            raise Killed
        asked.append(len(samples))
        return question_attention(student, samples)

    monkeypatch.setattr(module, "question_attention", dying)
    with pytest.raises(Killed):
        run_grounding(request(student_folder, phantoms), tmp_path / "o", Silent())
    assert not (tmp_path / "o" / "grounding.json").exists()
    with pytest.raises(InputError, match=r"already contains a grounding run.*--resume"):
        run_grounding(request(student_folder, phantoms), tmp_path / "o", Silent())
    asked.clear()
    monkeypatch.setattr(module, "question_attention", lambda student, samples, *_: asked.append(len(samples)) or
                        question_attention(student, samples))  # fmt: skip
    again = run_grounding(request(student_folder, phantoms, resume=True), tmp_path / "o", Silent())
    assert sum(asked) == again.questions - 8
    assert again.findings == finished[1].findings
    asked.clear()
    run_grounding(request(student_folder, phantoms, resume=True), tmp_path / "o", Silent())
    assert asked == []  # a finished run is measured again from its maps
    with pytest.raises(InputError, match="questions_sha256"):
        run_grounding(request(student_folder, phantoms, resume=True, regions=("heart",)), tmp_path / "o", Silent())


def test_two_students_are_compared_on_the_same_questions(student_folder, phantoms, finished, tmp_path, capsys):
    out, _ = finished
    against = run_grounding(request(student_folder, phantoms, against=out), tmp_path / "o", Silent())
    assert {finding.change.mean for finding in against.findings.layers} == {0.0}
    before = read_grounding(out)
    after = before.with_columns(pl.col("mass") + pl.when(pl.col("layer") == 2).then(0.1).otherwise(0))
    compared = compare_layers(before, after)
    assert compared.at(2, "mass").change.mean == pytest.approx(0.1)
    assert compared.at(2, "mass").change.beyond_noise
    assert compared.at(ALL_LAYERS, "mass").change.mean == pytest.approx(0.025)
    assert not compared.at(1, "mass").change.beyond_noise
    assert compared.at(2, "mass").change_beyond.mean == pytest.approx(0.1)
    likewise = after.with_columns(pl.col("mass_other") + pl.when(pl.col("layer") == 2).then(0.1).otherwise(0))
    assert compare_layers(before, likewise).at(2, "mass").change_beyond.mean == pytest.approx(0)
    with pytest.raises(InputError, match="measured different things"):
        compare_layers(before, after.filter(pl.col("question_id") != after["question_id"][0]))
    with pytest.raises(
        InputError, match="no finished grounding run; create one with `medalign student ground --student"
    ):
        read_grounding(tmp_path)
    page = grounding_page(tmp_path / "o")
    assert [figure.name for figure in page.figures] == ["layers", "change", "overlays-most", "overlays-least"]
    assert "Compared with run, the attention inside did not change significantly (0.0 points" in page.lead
    show_grounding(against, as_json=True)
    assert json.loads(capsys.readouterr().out)["against"] == str(out)
    show_grounding(against, as_json=False)
    shown = capsys.readouterr().out
    assert "by chance" in shown
    assert f"change from {out}" in shown.replace("\n", "")
    assert "0.000 [0.000, 0.000]" in shown


def test_questions_decide_where_no_region_is_asked_for(phantoms):
    named = grounded_questions(Manifest.read(phantoms), (), None)
    by_question = dict(zip(named.manifest.frame["question"], named.names, strict=True))
    assert by_question["Where is the lesion?"] == ("lesion",)
    assert by_question["How many lesions are there?"] == ("lesion",)
    assert by_question["Is the heart enlarged?"] == ("heart",)
    lesions = grounded_questions(Manifest.read(phantoms), ("LESION",), 5)
    assert set(lesions.names) == {("lesion",)}
    assert len(lesions.names) == 5
    assert lesions.left_out["beyond --limit"] > 0


def test_slakes_own_files_are_measured_where_its_masks_are(tmp_path):
    """Its miniature tree: the liver is the 4 x 3 pixels at the top left of a 9 x 6 image, a mask in three channels.

    Padded to 9 x 9 the image begins at row 1, so on a 3 x 3 grid of 3 x 3 pixels the liver's rows 1 to 3 and columns
    0 to 3 fill two thirds of cell (0, 0), a third of (1, 0), and a third as much of the cells right of them.
    """
    manifest = import_slake(release_trees.slake(tmp_path), ImportOptions(), Silent())
    questions = grounded_questions(manifest.split("train"), (), None)
    asked = questions.manifest.frame["question"].to_list()
    assert asked == ["Does the picture contain liver?", "How many livers are there?"]
    assert questions.names == [("Liver",), ("Liver",)]
    expected = torch.tensor([[2 / 3, 2 / 9, 0], [1 / 3, 1 / 9, 0], [0, 0, 0]]).flatten()
    torch.testing.assert_close(coverage_of(questions, PatchGrid(3, 3)), expected.expand(2, 9))


def test_nothing_to_measure_says_why(boxed, phantoms):
    with pytest.raises(InputError) as caught:
        grounded_questions(Manifest.read(boxed), ("liver",), None)
    message = str(caught.value)
    assert "4 about images without these regions, 2 about images without regions" in message
    assert "Available regions: Nodule, Mass" in message


def test_a_region_outside_its_image_is_an_error(boxed):
    manifest = Manifest.read(boxed)
    outside = {"name": "Nodule", "mask": None, "value": None, "box": [90.0, 0.0, 5.0, 5.0]}
    frame = manifest.frame.with_columns(
        pl.Series("regions", [[outside], [], [], [], [], []], dtype=manifest.frame["regions"].dtype)
    )
    questions = grounded_questions(Manifest(frame, manifest.root, "boxed"), (), None)
    with pytest.raises(InputError, match=r"1 of 1 questions cover no pixel .*q0 \(Nodule\)"):
        coverage_of(questions, PatchGrid(2, 2))


def test_attention_that_is_not_finite_is_an_error(student_folder, phantoms, tmp_path, monkeypatch):
    nan = torch.nan
    monkeypatch.setattr(module, "question_attention", lambda _, samples, *__: torch.full((len(samples), 4, 9), nan))
    with pytest.raises(InputError, match="not finite"):
        run_grounding(request(student_folder, phantoms, limit=2), tmp_path / "o", Silent())

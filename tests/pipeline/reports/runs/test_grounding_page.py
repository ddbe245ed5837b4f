"""The page of a grounding run: curves of the saved means, and attention drawn where it is."""

import json
import re

import numpy as np
import polars as pl
import pytest
from medalign.errors import InputError
from medalign.pipeline.evaluation.grounding.layer_statistics import summarize_layers
from medalign.pipeline.reports.runs.grounding_page import grounding_page
from PIL import Image
from run_folders import write_grounding

INSIDE = [[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0]]
"""All attention inside the regions on a 2 x 2 grid: the left half, the right half, the top half."""
UNIFORM = [[1, 1, 1, 1]] * 3


def attention(*layers):
    """[questions, layers, patches] from [layers][questions][patches]."""
    return np.asarray(layers, dtype=float).transpose(1, 0, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_grounding(tmp_path_factory.mktemp("grounding"), attention(UNIFORM, INSIDE, UNIFORM))


def test_curves_are_the_saved_means(run):
    page, saved = grounding_page(run), json.loads((run / "grounding.json").read_text())
    curves = next(figure for figure in page.figures if figure.name == "layers").table
    titles = {"mass": "attention inside the region", "pointing": "pointing game", "energy_iou": "energy IoU"}
    for found in saved["layers"]:
        if found["layer"] != "all":
            at = (curves["panel"] == titles[found["measure"]]) & (curves["x"] == found["layer"])
            values = dict(curves.filter(at).select("series", "y").iter_rows())
            assert values["this student"] == found["value"]
            assert values["attention to other images"] == found["other"]
            assert values["uniform attention"] == saved["chance"][found["measure"]]


def test_the_lead_compares_with_chance_and_with_other_images(run):
    lead = grounding_page(run).lead.replace("\xa0", " ")
    layers = json.loads((run / "grounding.json").read_text())["layers"]
    found = next(found for found in layers if (found["layer"], found["measure"]) == (1, "mass"))
    assert f"At the aligned layer 1, {100 * found['value']:.1f} % (95 % interval" in lead
    assert f"the attention to other images {100 * found['other']:.1f} %" in lead
    assert "significantly more than with other images" in lead
    assert "fewer than 10" in " ".join(grounding_page(run).sections[0].text)


def test_attention_that_is_the_same_everywhere_proves_nothing(tmp_path):
    """Without an adapter, and so without an aligned layer, the page looks at the middle one."""
    page = grounding_page(write_grounding(tmp_path, attention(UNIFORM, UNIFORM, UNIFORM), aligned=()))
    assert page.lead.startswith("At layer 1, ")
    assert page.title == "Grounding of lora on tiny"
    assert page.state == "neutral"
    assert "No significant difference from other images" in page.lead


def test_overlays_show_the_saved_attention_where_the_student_saw_it(tmp_path):
    """q1 is wide, 32 x 16: its square begins 8 pixels above the image. Its region is the right half of the image."""
    values = np.arange(36, dtype=float).reshape(3, 3, 4)
    figures = grounding_page(write_grounding(tmp_path, values)).figures
    panels = [row for figure in figures if figure.kind == "overlays" for row in figure.table.iter_rows(named=True)]
    assert len(panels) == 3
    wide = {(row["width"], row["height"]): row for row in panels}[32, 16]
    assert wide["views"] == [{"rows": 2, "columns": 2, "box": [0.0, -8.0, 32.0, 32.0], "values": list(values[1, 1])}]
    assert wide["outlines"] == [{"name": "nodule", "box": [16.0, 0.0, 16.0, 16.0], "mask": None}]


def test_the_questions_with_the_most_attention_inside_come_first(tmp_path):
    """At layer 1: q2 has all attention inside its half, q0 three quarters, q1 none. No image is in both figures."""
    half = [[3, 1, 3, 1], [1, 0, 1, 0], [1, 1, 0, 0]]
    page = grounding_page(write_grounding(tmp_path, attention(UNIFORM, half)))
    notes = {figure.name: figure.table["note"].to_list() for figure in page.figures if figure.kind == "overlays"}
    assert {name: [note.replace("\xa0", " ") for note in found] for name, found in notes.items()} == {
        "overlays-most": ["inside 100.0 %, uniform 50.0 %", "inside 75.0 %, uniform 50.0 %"],
        "overlays-least": ["inside 0.0 %, uniform 25.0 %"],
    }


def test_the_change_is_against_the_other_student(run):
    saved = json.loads((run / "grounding.json").read_text())
    gap = {"mean": -0.1, "low": -0.2, "high": -0.05}
    none = {"mean": 0.01, "low": -0.1, "high": 0.1}
    layers = [found | {"change": gap, "change_beyond": none} for found in saved["layers"]]
    (run / "grounding.json").write_text(json.dumps(saved | {"against": "/runs/base", "layers": layers}))
    try:
        page = grounding_page(run)
    finally:
        (run / "grounding.json").write_text(json.dumps(saved))
    lead = page.lead
    assert "Compared with base, the attention inside fell significantly (-10.0 points, -20.0 to -5.0)" in lead
    assert "the part that depends on the image did not change significantly (+1.0 points, -10.0 to 10.0)" in lead
    curves = next(figure for figure in page.figures if figure.name == "layers").table
    value = {found["layer"]: found["value"] for found in saved["layers"] if found["measure"] == "mass"}
    before = curves.filter((curves["series"] == "before (base)") & (curves["panel"] == "attention inside the region"))
    assert before["y"].to_list() == pytest.approx([value[layer] + 0.1 for layer in range(3)])
    change = next(figure for figure in page.figures if figure.name == "change").table
    assert set(change.filter(change["series"] == "change")["y"]) == {-0.1}


def test_missing_images_and_old_runs_have_no_pictures(tmp_path):
    run = write_grounding(tmp_path, attention(UNIFORM, INSIDE), data_use="private")
    assert "3 images of the data set" in grounding_page(run).notice
    assert "private" in grounding_page(run).notice
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")
    images = next(section for section in grounding_page(run).sections if section.title == "Images")
    assert "1 picture is left out, because of image files: 1 changed since the run." in images.text
    saved = json.loads((run / "grounding.json").read_text())
    del saved["grid"]
    (run / "grounding.json").write_text(json.dumps(saved))
    page = grounding_page(run)
    assert [figure.name for figure in page.figures] == ["layers"]
    assert "did not record the grid" in " ".join(next(s for s in page.sections if s.title == "Images").text)


def test_attention_of_another_run_is_refused(tmp_path):
    run = write_grounding(tmp_path, attention(UNIFORM, INSIDE))
    np.save(run / "attention.npy", np.zeros((3, 1, 4), dtype=np.float32))
    with pytest.raises(InputError, match=r"has shape \(3, 1, 4\), but the run has \(3, 2, 4\)"):
        grounding_page(run)


def test_the_difference_from_other_images_is_that_of_the_numbers_beside_it(tmp_path):
    """q2 has a region that no other image has: the comparison is over two questions, and the lead says so."""
    run = write_grounding(tmp_path, attention(UNIFORM, INSIDE, UNIFORM))
    table = pl.read_parquet(run / "grounding.parquet")
    others = [column for column in table.columns if column.endswith("_other")]
    unshared = pl.when(pl.col("question_id") != "q2")
    table = table.with_columns(unshared.then(pl.col(name)).alias(name) for name in others)
    at = pl.col("layer") == 1
    table = table.with_columns(pl.when(at & (pl.col("question_id") == "q2")).then(0.25).otherwise("mass").alias("mass"))
    table.write_parquet(run / "grounding.parquet")
    saved = json.loads((run / "grounding.json").read_text())
    (run / "grounding.json").write_text(json.dumps(saved | summarize_layers(table).values()))
    page = grounding_page(run)
    lead = page.lead.replace("\xa0", " ")
    both = table.filter(at & pl.col("mass_other").is_not_null())
    here, other = (100 * both[name].mean() for name in ("mass", "mass_other"))
    said = re.search(r"Only 2 questions of the 3 .*: on these, ([\d.]+) % is inside, and ([\d.]+) % of the", lead)
    assert [float(number) for number in said.groups()] == [round(here, 1), round(other, 1)]
    assert f"({here - other:+.1f} points" in lead
    assert "At the aligned layer 1, 58.3 %" in lead
    assert "over the 2 of 3 questions" in next(figure for figure in page.figures if figure.name == "layers").caption
    assert "over the 2 of 3 questions" in " ".join(page.sections[-1].text)


def test_the_page_has_the_warnings_of_the_terminal(tmp_path):
    run = write_grounding(tmp_path, attention(UNIFORM, INSIDE, UNIFORM))
    saved = json.loads((run / "grounding.json").read_text())
    (run / "grounding.json").write_text(json.dumps(saved | {"warnings": ["half of the update is lost"]}))
    page = grounding_page(run)
    assert page.sections[0].text == ["Half of the update is lost."]
    assert page.lead.endswith("Read the warnings first.")

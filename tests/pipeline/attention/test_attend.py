"""`medalign student attend`: its numbers are those of `Student.attend`, and its pictures show them where they are."""

import hashlib
import io
import json
import re
import shutil
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import medalign
import numpy as np
import pytest
import torch
from medalign.cli import app
from medalign.pipeline.reports.figures import figure_files
from medalign.pipeline.reports.figures.figure_files import draw_again, read_figure
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import save_adapter
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.images import image_hash
from medalign.teacher_cache.store import open_store
from PIL import Image
from stores import write_store
from students import LAYER, adapter_record, trainable, write_images
from typer.testing import CliRunner

QUESTION = "Is <b>it</b> $wide$?"


def run(*words, code=0):
    result = CliRunner().invoke(app, ["student", "attend", "--device", "cpu", *map(str, words)])
    assert result.exit_code == code, result.output
    return SimpleNamespace(out=result.stdout, err=result.stderr)


@pytest.fixture(scope="module")
def given(tmp_path_factory, student_folder):
    """A student with an adapter, a wide and a tall image, and a store of the first."""
    folder = tmp_path_factory.mktemp("attend")
    shutil.copytree(student_folder, folder / "student")
    student = trainable(folder / "student")
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name or name.startswith("aligned."):
                parameter.normal_(std=0.1)
    save_adapter(student.model, replace(adapter_record(student), prompt=student.prompt), folder / "adapter")
    images = write_images(folder / "images", [(40, 20), (18, 30)])
    write_store(folder / "s.zarr", range(1), hashes=[image_hash(images[0].read_bytes())], grid=PatchGrid(3, 3))
    words = ("--student", folder / "student", "--template", "vicuna_v1", "--question", QUESTION)
    return SimpleNamespace(folder=folder, images=images, words=words)


@pytest.fixture(scope="module")
def compared(given):
    """Before and after training, beside the teacher, at two layers."""
    out = given.folder / "compared"
    more = ("--adapter", given.folder / "adapter", "--image", given.images[0], "--store", given.folder / "s.zarr")
    printed = run(*given.words, *more, "--layers", f"1, {LAYER}", "--out", out)
    return SimpleNamespace(out=out, printed=printed.out, values=json.loads((out / "attend.json").read_text()))


def loaded(given, **adapter):
    return medalign.load_student(given.folder / "student", template="vicuna_v1", device="cpu", **adapter)


def test_base_and_adapter_are_those_of_the_python_api(given, compared):
    (image,) = compared.values["images"]
    students = {"base": loaded(given), "adapter": loaded(given, adapter=given.folder / "adapter")}
    assert list(image["students"]) == list(students)
    means = []
    for name, student in students.items():
        seen = student.attend(given.images[0], QUESTION, [1, LAYER])
        shown = image["students"][name]
        assert list(shown["share_on_image"].values()) == pytest.approx(seen.shares, abs=1e-6)
        assert shown["top_cells"][0]["box"] == list(seen.top_cells()[0].box)
        means.append(shown["mean_share_on_image"])
    assert abs(means[0] - means[1]) > 1e-3  # the adapter changes attention
    assert compared.values["aligned_layers"] == [LAYER]


def test_the_distance_to_the_teacher_is_a_kl_of_distributions(given, compared):
    E_a = open_store(given.folder / "s.zarr").for_image(given.images[0]).E_a.double().numpy()
    seen = loaded(given).attend(given.images[0], QUESTION, [1, LAYER])
    for layer, attention in zip(seen.layers, seen.maps.double().numpy(), strict=True):
        p, t = attention / attention.sum(), E_a / E_a.sum()
        expected = sum(t[cell] * np.log(t[cell] / p[cell]) for cell in range(9))
        assert compared.values["images"][0]["teacher"]["kl"]["base"][str(layer)] == pytest.approx(expected, abs=1e-5)


def test_the_last_row_of_the_table_is_of_the_mean_map(given, compared):
    E_a = open_store(given.folder / "s.zarr").for_image(given.images[0]).E_a.double().numpy()
    student = loaded(given, adapter=given.folder / "adapter")
    seen = student.attend(given.images[0], QUESTION, [1, LAYER])
    attention = seen.maps.double().numpy().mean(axis=0)
    p, t = attention / attention.sum(), E_a / E_a.sum()
    expected = sum(t[cell] * np.log(t[cell] / p[cell]) for cell in range(9))
    teacher = compared.values["images"][0]["teacher"]
    assert teacher["kl_of_mean_map"]["adapter"] == pytest.approx(expected, abs=1e-5)
    assert abs(expected - np.mean(list(teacher["kl"]["adapter"].values()))) > 1e-3  # that is another number
    (row,) = [line.split("\u2502") for line in compared.printed.splitlines() if "mean map " in line]
    assert float(row[3]) == pytest.approx(100 * seen.mean_share, rel=1e-3)  # layer, base, adapter
    assert float(row[-2]) == pytest.approx(expected, rel=1e-3)
    assert f"divergence from the teacher's (KL) is {expected:.3f} instead of" in compared.printed


def test_the_figure_has_the_maps_on_their_cells(given, compared):
    figure = read_figure(compared.out / "figures" / "attention.parquet")
    panels = figure.table.rows(named=True)
    expected = [
        "image",
        "teacher ",
        "base, mean",
        "adapter, mean",
        "base, layer 2",
        "adapter, layer 2 (aligned)",
    ]
    assert panels[4]["panel"] == "base, layer 2"  # a base was not aligned
    assert all(panel["panel"].startswith(start) for panel, start in zip(panels, expected, strict=True))
    seen = loaded(given, adapter=given.folder / "adapter").attend(given.images[0], QUESTION, [1, LAYER])
    for panel, values in ((panels[3], seen.mean), (panels[5], seen.maps[1])):
        (view,) = panel["views"]
        assert (view["rows"], view["columns"], view["box"]) == (3, 3, [0, -10, 40, 40])
        assert view["values"] == pytest.approx(values.tolist(), abs=1e-6)
    assert panels[3]["marked"] == list(seen.top_cells()[0].box)
    assert "with the mean of 2 layers, a black and white outline marks the most attended cell" in figure.caption
    assert f"{100 * seen.mean_share:.3g} % on the image" in panels[3]["note"]


def test_the_folder_has_a_page_and_figures_that_can_be_drawn_again(compared):
    figures = compared.out / "figures"
    names = [f"{name}.{end}" for name in ("attention", "layers", "shares") for end in ("parquet", "png", "svg")]
    assert sorted(path.name for path in figures.iterdir()) == sorted(names)
    assert {path.name for path in compared.out.glob("*.*")} == {"attention.png", "attend.json", "report.html"}
    page = (compared.out / "report.html").read_text()
    assert "Is &lt;b&gt;it&lt;/b&gt; $wide$?" in page
    assert page.count("<img") == 3
    before = {name: (figures / name).read_bytes() for name in names}
    assert figures.stat().st_mode == compared.out.stat().st_mode  # others may open it
    assert (compared.out / "attention.png").read_bytes() == before["attention.png"]
    draw_again(compared.out, Silent())
    assert {name: (figures / name).read_bytes() for name in names} == before


def test_the_page_says_what_was_run_without_folders_and_names_of_images(given, compared):
    page = unescape((compared.out / "report.html").read_text())
    facts = " ".join(re.sub("<[^>]+>", " ", page[page.index("<h2>What was run</h2>") :]).split())
    digest = hashlib.sha256(given.images[0].read_bytes()).hexdigest()
    for fact in (
        "question Is it $wide$?",
        f"image SHA-256 {digest[:12]}…, 40 x 20 pixels, 9 tokens",
        "student student adapters adapter teacher store s.zarr",
        "aligned layers 2 (aligned in adapter)",
    ):
        assert fact in facts
    assert str(given.folder) not in page
    assert given.images[0].name not in page
    assert (compared.values["student"], compared.values["store"]) == ("student", "s.zarr")


def test_the_summary_is_short_and_names_the_page(compared):
    assert "layer 2 (aligned in adapter)" in compared.printed
    assert "adapter, KL to teacher" in compared.printed
    assert f"The picture is {compared.out / 'attention.png'}" in compared.printed
    assert compared.printed.splitlines()[-1].startswith("next: `medalign student ground --student")


def test_several_adapters_are_compared_with_their_base(given, tmp_path, monkeypatch):
    blank = io.BytesIO()
    Image.new("RGB", (4, 4)).save(blank, "PNG")
    monkeypatch.setattr(figure_files, "draw", lambda figure, *kinds: (b"<svg/>", blank.getvalue()))
    shutil.copytree(given.folder / "student", tmp_path / "student")
    shutil.copytree(given.folder / "adapter", tmp_path / "adapter")
    wide = write_images(tmp_path / "images", [(60, 18)])[0]
    adapters = ("--adapter", given.folder / "adapter", "--adapter", tmp_path / "adapter")
    out = run(*given.words, *adapters, "--image", wide, "--layers", "1,3", "--out", tmp_path / "out").out
    (image,) = json.loads((tmp_path / "out" / "attend.json").read_text())["images"]
    assert list(image["students"]) == ["base", "adapter", "adapter (2)"]
    before, after = (loaded(given, **words).attend(wide, QUESTION, [1, 3]) for words in ({}, {"adapter": adapters[1]}))
    moved = after.moved_from(before)
    assert image["moved_from_base"] == {name: pytest.approx(moved, abs=1e-6) for name in ("adapter", "adapter (2)")}
    assert "adapter, on padding, %" in out
    sentence = (
        f"What adapter changed: the image gets {100 * after.mean_share:.3g} % instead of {100 * before.mean_share:.3g} "
        f"% of the question's attention; {100 * moved:.3g} % of the attention on the image moved to other cells; "
    )
    assert sentence in out
    page = unescape((tmp_path / "out" / "report.html").read_text())
    assert sentence in page.replace("\u00a0", " ")


def test_an_image_is_found_in_another_unicode_form(given, tmp_path):
    shutil.copy(given.images[0], tmp_path / "Scha\u0308del.png")
    words = ("--image", tmp_path / "Sch\u00e4del.png", "--store", given.folder / "s.zarr", "--layers", "3")
    values = json.loads(run(*given.words, *words, "--out", tmp_path / "out", "--json").out)
    assert "teacher" in values["images"][0]


def test_several_images_and_one_layer_without_an_adapter(given, tmp_path):
    words = [word for path in given.images for word in ("--image", path)]
    values = json.loads(run(*given.words, *words, "--layers", "3", "--out", tmp_path / "out", "--json").out)
    first, second = loaded(given).attend(given.images, QUESTION, [3])
    for image, seen in zip(values["images"], (first, second), strict=True):
        assert image["students"]["student"]["mean_share_on_image"] == pytest.approx(seen.shares[0], abs=1e-6)
        assert "teacher" not in image
    assert [image["students"]["student"]["height"] for image in values["images"]] == [20, 30]
    assert values["aligned_layers"] == []
    assert not (tmp_path / "out" / "figures" / "layers.png").exists()
    panels = read_figure(tmp_path / "out" / "figures" / "attention.parquet").table["panel"].to_list()
    assert panels == ["image 1", "student, layer 3", "image 2", "student, layer 3"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--image", "absent.png"), 3, "image not found: absent.png"),
        (("--layers", "4"), 2, "the student has no layer 4; its layers are 0 to 3"),
        (("--layers", "3,x"), 2, "--layers '3,x' is not a list of layer numbers such as 3,7"),
        (("--layers", "3,3"), 2, "each of them once"),
        (("--question", " "), 2, "the question is empty"),
        (
            ("--adapter", "adapter", "--adapter", "adapter"),
            3,
            "adapter is listed twice: pass each adapter once",
        ),
        (("--out", "adapter/medalign.json/new"), 3, "medalign.json is no folder: pass another path"),
        (("--out", "new.jpg"), 2, "--out new.jpg has the name of a file"),
        (("--image", "adapter"), 3, "adapter: a folder, not an image"),
        (("--hash-key", "key"), 2, "--hash-key is the key of a store: pass --store with it"),
        (("--store", "s.zarr"), 4, "1.png: its bytes have SHA-256"),
        (("--out", "student"), 3, "student already exists. Choose another --out"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(given, monkeypatch, words, code, message):
    monkeypatch.chdir(given.folder)
    before = sorted(path.name for path in given.folder.iterdir())
    usual = [*given.words, "--image", given.images[1], "--out", "new"]
    for option in {"--question", "--out"} & set(words):
        del usual[(place := usual.index(option)) : place + 2]
    assert message in run(*usual, *words, code=code).err
    assert sorted(path.name for path in given.folder.iterdir()) == before

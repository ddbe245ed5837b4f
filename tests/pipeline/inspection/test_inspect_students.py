"""`medalign student inspect` on a tiny student and an adapter: its folder, its numbers, and what it refuses."""

import io
import json
import re
import shutil
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from medalign.cli import app
from medalign.errors import InputError, StoreError
from medalign.pipeline.data.importers.common import read_images
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.data.regions import Region
from medalign.pipeline.inspection import inspect_students
from medalign.pipeline.inspection.arms import find_arms
from medalign.pipeline.inspection.inspect_request import InspectRequest
from medalign.pipeline.inspection.inspect_students import run_inspection
from medalign.pipeline.inspection.inspected_images import inspected_images
from medalign.pipeline.inspection.tokens import token_study
from medalign.pipeline.inspection.tokens.cluster_measures import project_pca
from medalign.pipeline.reports.figures import figure_files
from medalign.pipeline.reports.figures.figure_files import read_figure
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import save_adapter
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from PIL import Image
from stores import write_store
from students import LAYER, adapter_record, trainable, write_images
from typer.testing import CliRunner

COUNT = 12


@pytest.fixture(scope="module")
def given(tmp_path_factory, student_folder):
    """A student with an adapter, twelve images with a region each, and a store of them."""
    folder = tmp_path_factory.mktemp("inspect")
    shutil.copytree(student_folder, folder / "student")
    student = trainable(folder / "student")
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name or name.startswith("aligned."):
                parameter.normal_(std=0.1)
    save_adapter(student.model, replace(adapter_record(student), prompt=student.prompt), folder / "adapter")
    names = [path.name for path in write_images(folder / "images", [(24, 24)] * COUNT)]
    columns = read_images(folder / "images", names, Silent()).columns
    rows = [
        ManifestRow(
            question_id=f"q{number}", question="Is there a nodule?", answer=("yes", "no")[number % 2],
            answer_type="closed", split="test", data_use="public",
            regions=(Region(name="nodule", box=(0, 0, 24, 8)),), **columns[names[number]],
        )
        for number in range(COUNT)
    ]  # fmt: skip
    manifest = Manifest.from_rows(rows, folder / "images", "made up")
    manifest.write(folder / "m.parquet")
    hashes = manifest.frame["image_hash"].to_list()
    write_store(folder / "s.zarr", range(COUNT), hashes=hashes, grid=PatchGrid(3, 3))
    request = InspectRequest(
        student=folder / "student", adapters=(folder / "adapter",), manifest=folder / "m.parquet",
        store=str(folder / "s.zarr"), template="vicuna_v1", device="cpu", max_new_tokens=2, shown=2, limit=10,
    )  # fmt: skip
    return SimpleNamespace(folder=folder, request=request, manifest=manifest)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Blank pictures, and principal components instead of t-SNE, which both have their own tests."""
    with pytest.MonkeyPatch.context() as patched:
        blank = io.BytesIO()
        Image.new("RGB", (4, 4)).save(blank, "PNG")
        patched.setattr(figure_files, "draw", lambda figure, *kinds: (b"<svg/>", blank.getvalue()))
        patched.setattr(token_study, "project_tsne", lambda values, seed: project_pca(values))
        yield


@pytest.fixture(scope="module")
def inspected(given, quick):
    labels = []
    progress = Silent()
    progress.start = lambda label, total: labels.append(label)
    report = run_inspection(given.request, given.folder / "out", progress)
    return SimpleNamespace(
        labels=labels, report=report, out=report.out, values=json.loads((report.out / "inspection.json").read_text())
    )


def test_the_folder_has_numbers_tables_figures_and_the_page(inspected):
    files = {path.name for path in inspected.out.iterdir()}
    tables = {"probes", "clusters", "tokens", "agreement", "attention", "answers"}
    assert files == {"run.json", "inspection.json", "report.html", "figures", *(f"{name}.parquet" for name in tables)}
    assert inspected.values["students"] == ["base", "adapter"]
    assert inspected.values["labels"] == {"kind": "region", "names": ["background", "nodule"]}
    uncertain = {(one["arm"], one["family"]) for one in inspected.values["probes"] if one["uncertain"]}
    told = inspected.values["uncertain_verdicts"]
    assert {(arm, family) for arm, families in told.items() for family in families} == uncertain
    verdicts = inspected.report.verdicts
    assert uncertain == {(a, f) for a in verdicts for f in verdicts[a] if verdicts[a][f].startswith("Uncertain")}
    page = (inspected.out / "report.html").read_text()
    assert inspected.report.verdicts["base"]["regions"].split(". ")[0] in page
    drawn = {path.stem for path in (inspected.out / "figures").glob("*.svg")}
    assert {
        "tokens-tsne-inputs",
        "tokens-pca-layers",
        "tokens-agreement",
        "tokens-silhouette",
        "probes-regions",
    } <= drawn


def test_stages_before_the_adapter_are_those_of_the_base(inspected):
    rows = pl.read_parquet(inspected.out / "probes.parquet").filter(pl.col("family") == "regions")
    base, adapter = (rows.filter(pl.col("arm") == arm) for arm in ("base", "adapter"))
    stages = ["pixels", "teacher", "tower", "projector", "layer 1", "layer 2", "layer 3"]
    assert base["stage"].to_list() == adapter["stage"].to_list() == stages
    assert base["balanced_accuracy"].to_list()[:4] == adapter["balanced_accuracy"].to_list()[:4]
    agreement = pl.read_parquet(inspected.out / "agreement.parquet")
    change = dict(agreement.filter(pl.col("arm") == "adapter").select("stage", "change").iter_rows())
    assert change["tower"] == change["projector"] == 0
    assert change[f"layer {LAYER}"] != 0


def test_points_carry_their_names_and_the_figure_its_numbers(inspected):
    points = pl.read_parquet(inspected.out / "tokens.parquet")
    assert points.group_by("arm", "stage", "method").len()["len"].unique().to_list() == [10 * 9]
    figure = read_figure(inspected.out / "figures" / "tokens-tsne-layers.parquet")
    panels = figure.table["panel"].unique(maintain_order=True).to_list()
    assert panels == [f"{arm}: input of layer {layer}" for arm in ("base", "adapter") for layer in (1, 2, 3)]
    clusters = pl.read_parquet(inspected.out / "clusters.parquet")
    (row,) = clusters.filter((pl.col("arm") == "adapter") & (pl.col("stage") == "layer 2")).iter_rows(named=True)
    note = figure.settings["notes"]["adapter: input of layer 2"]
    assert note.startswith(f"silhouette {row['silhouette']:.3f}, scatter {row['scatter']:.2f}; in the plane")
    assert any(
        f"({row['change']:+.3f}" in line or f"{row['change']:+.3f} [" in line for line in inspected.report.findings
    )


def test_a_base_alone_without_store_and_regions(given, tmp_path):
    bare = given.manifest.frame.with_columns(pl.lit([], dtype=given.manifest.frame.schema["regions"]).alias("regions"))
    Manifest(bare, given.manifest.root, "bare").write(tmp_path / "m.parquet")
    words = ("--student", given.folder / "student", "--manifest", tmp_path / "m.parquet", "--template", "vicuna_v1",
             "--device", "cpu", "--max-new-tokens", "1", "--limit", "3", "--shown", "0", "--json")  # fmt: skip
    result = CliRunner().invoke(app, ["student", "inspect", *map(str, words), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert (values["students"], values["images"], values["verdicts"]) == (["base"], 3, {"base": {}})
    assert "fewer than 10" in values["warnings"][0]
    sentence = "No verdict on where information is lost, because nothing could be probed on 3 images"
    assert values["findings"][0].startswith(sentence)
    page = (tmp_path / "out" / "report.html").read_text()
    assert sentence in page
    assert values["warnings"][0][1:].removesuffix(" (docs/comparison.md)") in page
    assert "docs/comparison.md" not in page


def test_samples_are_seeded_and_keep_the_order_of_the_manifest(given):
    one, two, other = (inspected_images(given.manifest, limit=5, shown=2, seed=seed) for seed in (1, 1, 2))
    assert one.images.frame.equals(two.images.frame)
    assert not one.images.frame.equals(other.images.frame)
    order = given.manifest.frame["question_id"].to_list()
    assert one.images.frame["question_id"].to_list() == sorted(one.images.frame["question_id"], key=order.index)
    assert set(one.shown.frame["question_id"]) < set(one.asked.frame["question_id"])
    assert one.left_out == {"beyond --limit": COUNT - 5}
    assert {sample.question for sample in one.samples} == {"Describe the image."}  # a long one costs time and memory


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "train"}, r"has no split 'train'; its splits: test \(12 rows\)\. Choose one of them"),
        ({"adapters": ("adapter", "adapter")}, "is listed twice: pass each adapter once"),
        ({"manifest": "absent.parquet"}, "absent.parquet does not exist"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_loaded(given, tmp_path, change, message):
    paths = {"adapters", "manifest"}
    values = {
        name: tuple(given.folder / item for item in value) if name == "adapters" else
        given.folder / value if name in paths else value
        for name, value in change.items()
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        run_inspection(replace(given.request, **values), tmp_path / "out", Silent())
    assert not (tmp_path / "out").exists()


def test_a_store_must_fit(given, tmp_path):
    hashes = given.manifest.frame["image_hash"].to_list()
    write_store(tmp_path / "few.zarr", range(2), hashes=hashes[:2], grid=PatchGrid(3, 3))
    write_store(tmp_path / "wide.zarr", range(2), hashes=hashes[:2], grid=PatchGrid(4, 4))
    for name, message in (
        ("few", "of 10 images have no row"),
        ("wide", "has grid 4x4 .*the student's image tokens have grid 3x3"),
    ):
        with pytest.raises(StoreError, match=message):
            run_inspection(replace(given.request, store=str(tmp_path / f"{name}.zarr")), tmp_path / "out", Silent())
        assert not (tmp_path / "out").exists()


def test_a_used_folder_is_refused(given, inspected):
    with pytest.raises(InputError, match=r"already exists\. Choose another --out"):
        run_inspection(given.request, inspected.out, Silent())


def test_an_interrupted_inspection_leaves_nothing(given, tmp_path, monkeypatch):
    def interrupt(*words, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect_students, "label_cells", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_inspection(given.request, tmp_path / "new" / "out", Silent())
    assert list(tmp_path.iterdir()) == []


def test_every_stage_of_the_progress_has_its_own_label(inspected):
    assert len(set(inspected.labels)) == len(inspected.labels)
    for arm in ("base", "adapter"):
        assert {f"{arm}: reading image tokens", f"{arm}: probing regions"} < set(inspected.labels)


def test_numbers_have_one_style(inspected):
    """Percent signs after a space, and intervals in brackets, on the page and in the sentences."""
    page = (inspected.out / "report.html").read_text()
    words = re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    words = unescape(re.sub(r"<[^>]*>", " ", words))
    assert re.findall(r"\d%", words) == []
    assert re.findall(r"\([-+]?[\d.]+ to [-+]?[\d.]+\)", words) == []
    assert re.search(r"\d % \[-?\d+ %, -?\d+ %\]", words.replace("\u00a0", " "))


def test_an_adapter_as_student_is_compared_with_its_base(given):
    arms = find_arms(replace(given.request, student=given.folder / "adapter", adapters=()))
    assert [(arm.name, arm.aligned_layers) for arm in arms] == [("base", ()), ("adapter", (LAYER,))]
    assert np.unique([arm.facts.template_name for arm in arms]).tolist() == ["vicuna_v1"]

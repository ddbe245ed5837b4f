"""A student carries the strictest data-use class of all that it learnt from, through every further step."""

import json
from pathlib import Path

import polars as pl
import pytest
from forgeries import root_by_the_page
from labs import QUESTIONS, hashes_of, lab_settings, make_lab
from medalign.errors import InputError
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.model_folders import export_student
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import read_adapter_record
from medalign.student.adapters.student_record import read_student_record
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from stores import write_store

STATED = {"title": "Chests", "licence": "CC-BY-4.0"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """Three stores, and manifests with one question of another class in one of the splits."""
    folder = make_lab(tmp_path_factory.mktemp("lab"))
    hashes = hashes_of([folder / "images" / f"{number}.png" for number in range(QUESTIONS)])
    for used, stated in (("public", {}), ("credentialed", {}), ("private", STATED)):
        out = folder / f"{used}.zarr"
        write_store(out, range(QUESTIONS), hashes=hashes, grid=PatchGrid(3, 3), shard_rows=8, data_use=used, **stated)
    manifest = Manifest.read(folder / "manifest.parquet")
    for name, place in (("train", 0), ("validation", QUESTIONS - 1)):
        classes = ["public"] * QUESTIONS
        classes[place] = "credentialed"
        changed = manifest.frame.with_columns(pl.Series("data_use", classes))
        Manifest(changed, manifest.root, manifest.source).write(folder / f"credentialed-{name}.parquet")
    return folder


def settings_of(lab: Path, manifest: str, store: str | None, student: Path | None = None) -> Settings:
    values = lab_settings(lab, max_steps=1, per_device_train_batch_size=1, gradient_accumulation_steps=1)
    values["data"] = {"manifest": str(lab / f"{manifest}.parquet"), "validation_split": "validation"}
    if store is None:
        values["alignment"] |= {"alpha": 0.0, "beta": 0.0}
    else:
        values["data"]["store"] = str(lab / f"{store}.zarr")
    if student is not None:
        values["student"]["path"] = str(student)
    return Settings.model_validate(values)


@pytest.mark.parametrize(
    ("manifest", "store", "strictest"),
    [
        ("manifest", "public", "public"),
        ("manifest", None, "public"),
        ("manifest", "private", "private"),
        ("credentialed-train", "public", "credentialed"),
        ("credentialed-train", None, "credentialed"),
        ("credentialed-train", "private", "private"),
        ("credentialed-validation", "public", "credentialed"),  # which adapter is kept is learnt from it
    ],
)
def test_the_strictest_of_questions_and_store_counts(lab, manifest, store, strictest):
    assert plan_training(settings_of(lab, manifest, store)).summary()["data_use"] == strictest


def test_the_plan_shows_title_and_license_of_the_store(lab):
    def shown(store: str | None) -> tuple[object, object]:
        plan = plan_training(settings_of(lab, "manifest", store)).summary()
        return plan["store_title"], plan["store_license"]

    assert shown("private") == ("Chests", "CC-BY-4.0")
    assert shown("public") == ("not stated", "not stated")
    assert shown(None) == (None, None)


def test_a_run_names_root_digest_title_and_license_of_its_store(lab, tmp_path):
    run_training(settings_of(lab, "manifest", "private"), tmp_path / "run", Silent())
    root = root_by_the_page(lab / "private.zarr")
    record = json.loads((tmp_path / "run" / "medalign.json").read_text())
    assert record["store"]["root_sha256"] == root
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["plan"]["store_root_sha256"] == root
    made = export_student(tmp_path / "run", tmp_path / "new", base=None, dtype=None, evaluations=(), progress=Silent())
    card = (tmp_path / "new" / "README.md").read_text()
    assert root in card
    assert (record["store"]["title"], record["store"]["license"]) == ("Chests", "CC-BY-4.0")
    assert "| title of the store | Chests |\n| license of the images | CC-BY-4.0, as the store states it |\n" in card
    assert made.summary()["store_license"] == "CC-BY-4.0"
    record["store"] |= {"title": None, "license": None}
    (tmp_path / "run" / "medalign.json").write_text(json.dumps(record))
    export_student(tmp_path / "run", tmp_path / "bare", base=None, dtype=None, evaluations=(), progress=Silent())
    card = (tmp_path / "bare" / "README.md").read_text()
    assert "| title of the store | not stated |\n| license of the images | not stated in the store |\n" in card
    for key in ("root_sha256", "title", "license"):  # as earlier versions wrote it
        del record["store"][key]
    (tmp_path / "run" / "medalign.json").write_text(json.dumps(record))
    export_student(tmp_path / "run", tmp_path / "old", base=None, dtype=None, evaluations=(), progress=Silent())
    card = (tmp_path / "old" / "README.md").read_text()
    assert root not in card
    assert "license of the images" not in card


def test_record_card_and_students_trained_on_from_it_keep_the_class(lab, tmp_path):
    run_training(settings_of(lab, "credentialed-train", "public"), tmp_path / "run", Silent())
    assert read_adapter_record(tmp_path / "run").data_use == "credentialed"
    out = tmp_path / "out"
    made = export_student(tmp_path / "run", out, base=None, dtype=None, evaluations=(), progress=Silent())
    assert made.summary()["data_use"] == "credentialed"
    card = (out / "README.md").read_text()
    assert (
        "Data-use class: **credentialed** (teacher store: public). Trained with images that only credentialed users"
        in card
    )
    assert read_student_record(out).data_use == "credentialed"
    assert plan_training(settings_of(lab, "manifest", "public", out)).data_use == "credentialed"
    record = json.loads((out / "medalign-student.json").read_text())
    (out / "medalign-student.json").write_text(json.dumps(record | {"data_use": "free"}))
    with pytest.raises(InputError, match="damaged"):
        read_student_record(out)

"""Data as people get it goes through both stages as a user types them: the hub's Parquet, and a CSV of one's own."""

import json

import polars as pl
import pytest
import release_trees as trees
import torch
import yaml
from medalign.cli import app
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from safetensors.torch import save_file
from typer.testing import CliRunner

SPLITS = {"train": 4, "validation": 2, "test": 2}


def report(*arguments: object) -> dict:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, f"{result.stdout}\n{result.stderr}"
    return json.loads(result.stdout)


def of_the_hub(folder):
    for number, (split, rows) in enumerate(SPLITS.items()):
        named = [(trees.encoded(10 * number + row), f"is it {row}?", ("yes", "no")[row % 2]) for row in range(rows)]
        trees.hub_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", named)
    return "vqa-rad", folder, ()


def of_ones_own(folder):
    rows = []
    for number, (split, count) in enumerate(SPLITS.items()):
        for row in range(count):
            trees.draw(folder / "scans" / split / f"{row}.png", 10 * number + row)
            rows.append((f"is it {row}?", ("yes", "no")[row % 2], f"scans\\{split}\\{row}.png", split))
    table = trees.write_csv(folder / "lab.csv", ("Frage", "answer", "image", "split"), rows)
    return "table", table, ("--column", "question=Frage")


@pytest.mark.parametrize("data", [of_the_hub, of_ones_own])
def test_import_extract_train_and_evaluate(data, student_folder, tmp_path):
    kind, source, options = data(tmp_path / "data")
    manifest, store, adapter = (tmp_path / name for name in ("m.parquet", "s.zarr", "adapter"))
    imported = report("data", "import", kind, source, "--out", manifest, *options)
    assert imported["splits"] == SPLITS
    assert (imported["images"], imported["answer_types"]) == (8, {"closed": 8})
    torch.manual_seed(3)
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), tmp_path / "teacher.safetensors")
    teacher = ("--teacher", "phantom-tiny", "--weights", tmp_path / "teacher.safetensors", "--device", "cpu")
    extracted = report("teacher", "extract", *teacher, "--grid", "3x3", "--manifest", manifest, "--out", store)
    assert extracted["images"] == 8
    config = {
        "student": {"path": str(student_folder), "template": "vicuna_v1"},
        "data": {"manifest": str(manifest), "store": str(store), "validation_split": "validation"},
        "alignment": {"layer": 2},
        "lora": {"r": 2, "lora_alpha": 4},
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "dataloader_num_workers": 0,
            "device": "cpu",
        },
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    report("student", "train", tmp_path / "run.yaml", "--out", adapter)
    asked = ("--manifest", manifest, "--split", "test", "--device", "cpu", "--max-new-tokens", 2)
    scores = report(
        "student", "evaluate", "--student", student_folder, "--adapter", adapter, *asked, "--out", tmp_path / "e"
    )
    assert scores["questions"] == 2
    answered = pl.read_parquet(tmp_path / "e" / "predictions.parquet")
    assert answered["answer"].to_list() == ["yes", "no"]

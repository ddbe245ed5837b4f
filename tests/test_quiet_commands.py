"""No command prints a warning of another package: users cannot act on it, and it hides what they can act on."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.progress import Silent
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from safetensors.torch import save_file

PROGRAM = """
import json, sys
from medalign.cli import app
for arguments in json.load(sys.stdin):
    print("$ medalign", *arguments, file=sys.stderr, flush=True)
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
"""
DECODINGS = ("beam", "vcd", "opera", "pai")
"""One of each way to use the cache: beams, a second branch, a tree, a bias of the scores."""
OTHERS_WARNING = re.compile(r"\w+Warning\b|warnings\.warn|deprecat|^\s*\[(?!.*%)\w+\]|\bW\d{4}\b", re.IGNORECASE)


def command_lines(folder: Path, student: Path) -> list[list[str]]:
    """Every command that loads a library which warns, in an order in which each has its inputs."""
    manifest, store, adapter = folder / "phantoms" / "manifest.parquet", folder / "store.zarr", folder / "adapter"
    image = next((folder / "phantoms" / "images").rglob("*.png"), folder / "drawn.png")
    split = ["--manifest", manifest, "--split", "test", "--limit", "2"]
    teacher = ["--teacher", "phantom-tiny", "--weights", folder / "teacher.safetensors", "--device", "cpu"]
    generate = ["student", "generate", "--student", adapter, "--image", image, "--question", "Is there a lesion?"]
    lines = [
        ["doctor"],
        ["data", "check", manifest],
        ["teacher", "extract", *teacher, "--manifest", manifest, "--out", store, "--grid", "3x3"],
        ["store", "verify", store],
        ["student", "train", folder / "run.yaml", "--out", adapter],
        ["student", "evaluate", "--student", adapter, *split, "--out", folder / "results"],
        ["student", "ground", "--student", adapter, *split, "--out", folder / "grounding"],
        ["student", "export", adapter, "--out", folder / "exported"],
        ["student", "generate", "--student", folder / "exported", *generate[4:], "--max-new-tokens", "2"],
        *([*generate, "--decode", method, "--max-new-tokens", "2"] for method in DECODINGS),
    ]
    return [[str(word) for word in line] for line in lines]


@pytest.fixture
def warned_of(tmp_path: Path, student_folder: Path) -> Path:
    """A base whose files make transformers warn: settings of sampling without sampling, a short longest text."""
    base = tmp_path / "base"
    shutil.copytree(student_folder, base)
    changes = {
        "generation_config.json": {"do_sample": False, "temperature": 0.1, "top_p": 0.9},
        "tokenizer_config.json": {"model_max_length": 5},
    }
    for name, values in changes.items():
        (base / name).write_text(json.dumps(json.loads((base / name).read_text()) | values))
    return base


@pytest.fixture
def folder(tmp_path: Path, warned_of: Path) -> Path:
    """Phantoms, the weights of a teacher, and a configuration."""
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), tmp_path / "teacher.safetensors")
    make_phantoms(tmp_path / "phantoms", 10, 4, Silent())
    settings = {
        "student": {"path": str(warned_of), "template": "vicuna_v1"},
        "data": {
            "teacher": "phantom-tiny",
            "validation_split": "validation",
            "manifest": str(tmp_path / "phantoms" / "manifest.parquet"),
            "store": str(tmp_path / "store.zarr"),
        },
        "alignment": {"layer": 2},
        "lora": {"r": 2, "lora_alpha": 4},
        "training": {"max_steps": 2, "per_device_train_batch_size": 2, "save_steps": 1, "dataloader_num_workers": 1,
                     "device": "cpu", "gradient_checkpointing": "non_reentrant"},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def test_no_command_prints_a_warning_of_another_package(folder: Path, warned_of: Path) -> None:
    torch.set_num_threads(1)
    lines = json.dumps(command_lines(folder, warned_of))
    ran = subprocess.run([sys.executable, "-c", PROGRAM], input=lines, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("$ medalign") == len(command_lines(folder, warned_of))
    warned = [line for line in ran.stderr.splitlines() + ran.stdout.splitlines() if OTHERS_WARNING.search(line)]
    assert warned == []


@pytest.mark.parametrize(
    "line",
    [
        "/lib/python3.11/site-packages/peft/x.py:12: FutureWarning: `past_key_values` is deprecated",
        "  warnings.warn(",
        "`past_key_values`/`cache_params` are deprecated. Use `cache` instead.",
        "[transformers] The following generation flags are not valid",
    ],
)
def test_the_pattern_knows_warnings(line: str) -> None:
    assert OTHERS_WARNING.search(line)

"""A lab for `student align`: a tiny student, anchors and targets in one manifest, a store of random features."""

from pathlib import Path
from typing import Any

import polars as pl
from labs import make_lab
from medalign.pipeline.align.align_settings import AlignSettings, load_align_settings
from medalign.pipeline.data.manifest import Manifest


def make_align_lab(folder: Path) -> Path:
    """The lab of `labs`, its images divided into the splits `anchors` (11) and `targets` (5)."""
    make_lab(folder)
    manifest = Manifest.read(folder / "manifest.parquet")
    frame = manifest.frame.filter(pl.col("image").is_not_null())
    split = ["targets" if number % 3 == 2 else "anchors" for number in range(frame.height)]
    Manifest(frame.with_columns(pl.Series("split", split)), manifest.root, "noise").write(folder / "images.parquet")
    return folder


def align_values(lab: Path, **training: Any) -> dict[str, Any]:
    """Sections of a short run; `training` are keys of that section."""
    short = {
        "steps": 6,
        "targets_per_step": 2,
        "anchors_per_step": 2,
        "learning_rate": 1e-3,
        "save_steps": 2,
        "logging_steps": 1,
        "dataloader_num_workers": 0,
        "device": "cpu",
    }
    manifest = str(lab / "images.parquet")
    return {
        "student": {"path": str(lab / "student"), "template": "vicuna_v1"},
        "data": {
            "store": str(lab / "store.zarr"),
            "targets": manifest,
            "targets_split": "targets",
            "anchors": manifest,
            "anchors_split": "anchors",
        },
        "translation": {"minimum_r2": -1e9, "minimum_skill": None},
        "lora": {"r": 2, "lora_dropout": 0.1},
        "training": {**short, **training},
        "report": {"images": 0},
    }


def align_settings(values: dict[str, Any], **overrides: Any) -> AlignSettings:
    """Settings of a new run; `overrides` have `__` for the dot of a key."""
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_align_settings(values, None, named, resume=False)

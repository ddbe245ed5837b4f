"""A lab for `medalign study`: the lab of `align_labs`, a short specification, and work that takes no time."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from align_labs import align_values, make_align_lab
from labs import lab_settings
from medalign.pipeline.data import saved_tables
from medalign.pipeline.evaluation.scoring import PREDICTIONS_FILE
from medalign.pipeline.studies.units.work_units import AlignUnit, AnswerUnit, MergeUnit, TrainUnit, Unit

STAGES = {"align": AlignUnit, "merge": MergeUnit, "train": TrainUnit, "answer": AnswerUnit}


def make_study_lab(folder: Path) -> Path:
    """`student`, `manifest.parquet`, `images.parquet` and `store.zarr`."""
    return make_align_lab(folder)


def study_values(lab: Path) -> dict[str, Any]:
    """A study of three arms and two seeds, with two steps of training each."""
    questions, images = str(lab / "manifest.parquet"), str(lab / "images.parquet")
    train, align = lab_settings(lab, max_steps=2, save_steps=100), align_values(lab, steps=2, save_steps=100)
    return {
        "title": "tiny",
        "seeds": [0, 1],
        "metrics": ["all_strict"],
        "baseline": "LoRA",
        "answers": {"batch_size": 8, "max_new_tokens": 2},
        "regimes": [
            {
                "name": "noise",
                "student": str(lab / "student"),
                "template": "vicuna_v1",
                "store": str(lab / "store.zarr"),
                "train": {"manifest": questions, "split": "train", "labels": 6},
                "develop": {"manifest": questions, "split": "validation"},
                "test": {"manifest": questions, "split": "train", "limit": 6},
                "targets": {"manifest": images, "split": "targets"},
                "anchors": {"manifest": images, "split": "anchors"},
            }
        ],
        "settings": {
            "train": {name: train[name] for name in ("alignment", "lora", "training")},
            "align": {name: align[name] for name in ("translation", "lora", "training")},
        },
        "arms": [
            {"name": "base"},
            {"name": "LoRA", "train": {"alignment.alpha": 0, "alignment.beta": 0, "alignment.rotation": "none"}},
            {"name": "align + MEDALIGN", "align": {}, "train": {}},
        ],
        "comparisons": [{"arm": "align + MEDALIGN", "against": "LoRA"}],
    }


def with_trials(values: dict[str, Any], number: int = 2) -> dict[str, Any]:
    """The same with trials of the learning rate."""
    trials = [{"train": {"training.learning_rate": 10.0**-rank}} for rank in range(1, number + 1)]
    arms = [arm | ({"trials": trials} if "train" in arm else {}) for arm in values["arms"]]
    return values | {"arms": arms, "tuning": {"seeds": [7]}}


def quick_work(monkeypatch: Any) -> list[Unit]:
    """Replace the work of all units by none; answers get random scores that depend on the unit. Returns the units."""
    done: list[Unit] = []

    def do(unit: Unit, out: Path, progress: Any) -> dict[str, Any]:
        done.append(unit)
        run = unit.run_folder(out)
        run.mkdir(parents=True, exist_ok=True)
        (run / "result.txt").write_text(unit.digest)
        if isinstance(unit, AnswerUnit):
            saved_tables.write(run / PREDICTIONS_FILE, scored_answers(unit))
        return {}

    monkeypatch.setattr("medalign.pipeline.data.manifest.manifest_problems", lambda frame: [])  # slow, tested elsewhere
    for stage in STAGES.values():
        monkeypatch.setattr(stage, "do", do)
    return done


def scored_answers(unit: AnswerUnit) -> pl.DataFrame:
    """Rows as of predictions.parquet."""
    frame = unit.questions.manifest.frame
    seed = int.from_bytes(hashlib.sha256(unit.digest.encode()).digest()[:4])
    scores = np.random.default_rng(seed).integers(0, 2, frame.height).astype(float)
    return frame.select(
        "question_id",
        image_hashes=pl.concat_list("image_hash").list.drop_nulls(),
        strict_kind=pl.lit("open"),
        strict_score=pl.Series(scores),
        reference_kind=pl.lit("open"),
        reference_score=pl.Series(scores),
    )

"""The models of the phantom study's other regimes: a student whose tower is strong, and two weaker teachers.

The demo's student never saw a phantom with a shift; `strong-student` saw both looks, for as many steps. The demo's
teacher learned for 2,500 steps; `medium-teacher` stopped early, and `random-teacher` never learned. Writes all three
to a folder, with `models.json`: how many caption slots each fills, and how the teachers' attention falls on lesions.

    python benchmarks/study_models.py --out phantom-study
"""

import argparse
import json
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from medalign.atomic import write_whole
from medalign.pipeline.demo.make_assets import AssetSizes, PrintedNotes, make_student, make_teacher
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from safetensors.torch import save_file

MEDIUM_STEPS = 300
"""Steps of the medium teacher, of the demo teacher's 2,500."""


def make_random_teacher(folder: Path) -> None:
    """A tower of the demo teacher's shape as it is initialized."""
    torch.manual_seed(0)
    weights = build_tower(teacher_spec("phantom-tiny")).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "phantom-teacher.safetensors")


def main(out: Path, sizes: AssetSizes, medium_steps: int) -> None:
    folders = {name: out / name for name in ("strong-student", "medium-teacher", "random-teacher")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    make_random_teacher(folders["random-teacher"])
    medium, progress = replace(sizes, teacher_steps=medium_steps), PrintedNotes()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        made: dict[str, Future[Any]] = {
            "strong-student": processes.submit(
                make_student, folders["strong-student"], sizes, progress, both_looks=True
            ),
            "medium-teacher": processes.submit(make_teacher, folders["medium-teacher"], medium, progress),
        }
        results = {name: asdict(result.result()) for name, result in made.items()}
    text = json.dumps({"medium_steps": medium_steps, "sizes": asdict(sizes), **results}, indent=1)
    write_whole(out / "models.json", text + "\n")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the models to")
    parser.add_argument("--medium-steps", type=int, default=MEDIUM_STEPS, help="training steps of the medium teacher")
    arguments = parser.parse_args()
    main(arguments.out, AssetSizes(), arguments.medium_steps)

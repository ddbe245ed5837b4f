"""Make the demo's assets from scratch: `python -m medalign.pipeline.demo.make_assets --out DIR`.

Draws phantoms from a separate series, trains the teacher and the student base, and writes both with a README that
reports their accuracy. The same seeds give the same files, except for rounding differences between machines.
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from ...atomic import write_whole
from ...student.inputs.image_processing import CLIP_MEAN, CLIP_STD
from ..terminal import Bars
from .corpus import draw_corpus
from .pretrain_student import KNOWN_TYPES, StudentBase, pretrain_student
from .pretrain_teacher import pretrain_teacher
from .slot_training import SlotAccuracy

TRAINING_SERIES, HELD_OUT_SERIES = 7001, 7002
"""Phantom series that no demo draws from (demos use --seed, 0 by default)."""
TRAINING_PHANTOMS, HELD_OUT_PHANTOMS = 3000, 300
TEACHER_STEPS, TOWER_STEPS, LANGUAGE_STEPS = (2500, 1600), 2500, 500


def make_assets(out: Path) -> None:
    """Train both models and write them to `out`."""
    started = time.monotonic()
    with Bars() as progress:
        corpus = draw_corpus(TRAINING_SERIES, TRAINING_PHANTOMS, CLIP_MEAN, CLIP_STD, progress)
        held_out = draw_corpus(HELD_OUT_SERIES, HELD_OUT_PHANTOMS, CLIP_MEAN, CLIP_STD, progress)
        teacher, teacher_accuracy = pretrain_teacher(corpus, held_out, steps=TEACHER_STEPS, seed=0, progress=progress)
        student = pretrain_student(
            corpus, held_out, tower_steps=TOWER_STEPS, steps=LANGUAGE_STEPS, seed=0, progress=progress
        )
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in teacher.state_dict().items()}
    save_file(tensors, out / "phantom-teacher.safetensors")
    folder = out / "phantom-student"
    for part in (student.model, student.tokenizer, student.processor):
        part.save_pretrained(folder)
    write_whole(out / "README.md", _readme(teacher_accuracy, student, time.monotonic() - started))


def _readme(teacher: SlotAccuracy, student: StudentBase, seconds: float) -> str:
    rows = "\n".join(
        f"| {name} | " + " | ".join(f"{value:.3f}" for value in asdict(accuracy).values()) + " |"
        for name, accuracy in (("teacher", teacher), ("student's vision tower", student.tower))
    )
    return f"""# Assets of the demo

Two tiny models trained only on synthetic phantoms, without any patient data.
License: Apache-2.0, like the rest of medalign.

- `phantom-teacher.safetensors`: image tower of the teacher `phantom-tiny` (open_clip's VisionTransformer).
- `phantom-student/`: a transformers Llava, the student base. It was taught these kinds of questions: \
{", ".join(KNOWN_TYPES)}; questions about lesions are left for fine-tuning.

Made by `python -m medalign.pipeline.demo.make_assets --out DIR` in {seconds / 60:.0f} minutes: phantom series \
{TRAINING_SERIES}, {TRAINING_PHANTOMS} images, captions and questions only, no masks.

Fraction of caption slots filled correctly on {HELD_OUT_PHANTOMS} held-out phantoms (series {HELD_OUT_SERIES}):

| | from patches | from the class token | lesion kind |
| --- | --- | --- | --- |
{rows}

The student's language model ended at {student.final_loss:.3f} nats per answer token.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the assets to")
    make_assets(parser.parse_args().out)

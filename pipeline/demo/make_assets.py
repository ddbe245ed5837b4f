"""Make the demo's assets from scratch: `python -m medalign.pipeline.demo.make_assets --out DIR`.

Draws phantoms from a separate series, trains the teacher and the student base, each in a process of its own with one
thread, and writes both with a README that reports what they can do. The same seeds give the same files, except for
rounding differences between machines.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import save_file

from ...atomic import write_whole
from ...progress import Progress, Silent
from ...student.inputs.image_processing import CLIP_MEAN, CLIP_STD
from ...student.metrics.region_attention import (
    attention_mass_inside,
    mass_expected_by_chance,
    pointing_hit,
    region_coverage,
)
from ...teacher_cache.teachers.teacher_loading import load_teacher
from .corpus import Corpus, draw_corpus, joined
from .pretrain_student import pretrain_student
from .pretrain_teacher import pretrain_teacher
from .slot_training import SlotAccuracy

TRAINING_SERIES, HELD_OUT_SERIES = 7001, 7002
"""Phantom series that no demo draws from (demos use --seed, 0 by default)."""
SHIFT = 0.7
"""Share of the other look in phantoms with a shift: those that the teacher knows and the student does not."""
LOOKS = {"without a shift": 0.0, "with a shift": SHIFT}


@dataclass(frozen=True, kw_only=True)
class AssetSizes:
    """How much is drawn and trained; the defaults are those of the shipped files."""

    usual: int = 3000
    """Phantoms without a shift, for the teacher and the student."""
    shifted: int = 2000
    """Phantoms with a shift, for the teacher only."""
    held_out: int = 200
    """Phantoms of each look that only measure."""
    teacher_steps: int = 2500
    tower_steps: int = 2200
    language_steps: int = 700


@dataclass(frozen=True, kw_only=True, slots=True)
class LesionAttention:
    """The teacher's CLS attention on held-out phantoms with a lesion."""

    inside: float
    """Mean share of the attention inside lesions."""
    chance: float
    """Mean share of the area inside lesions."""
    pointing: float
    """Fraction of the images whose strongest cell touches a lesion."""


@dataclass(frozen=True, kw_only=True)
class MadeTeacher:
    """What is reported of a teacher, by look."""

    accuracy: dict[str, SlotAccuracy]
    attention: dict[str, LesionAttention]


@dataclass(frozen=True, kw_only=True)
class MadeStudent:
    """What is reported of a student base; its tower's accuracy by look."""

    tower: dict[str, SlotAccuracy]
    final_loss: float


class PrintedNotes(Silent):
    """Prints notes, one line each; two processes share a terminal."""

    def note(self, text: str) -> None:
        print(text, flush=True)


def make_assets(out: Path, sizes: AssetSizes, progress: Progress) -> None:
    """Train both models at the same time and write them to `out`."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        teacher = processes.submit(make_teacher, out, sizes, progress)
        student = processes.submit(make_student, out, sizes, progress)
        text = _readme(sizes, teacher.result(), student.result(), time.monotonic() - started)
    write_whole(out / "README.md", text)


def make_teacher(out: Path, sizes: AssetSizes, progress: Progress) -> MadeTeacher:
    """Train the teacher on phantoms of both looks, write it to `out`, and measure it."""
    torch.set_num_threads(1)
    usual = _draw(TRAINING_SERIES, sizes.usual, progress)
    shifted = _draw(TRAINING_SERIES, sizes.shifted, progress, first=sizes.usual, shift=SHIFT)
    teacher = pretrain_teacher(joined(usual, shifted), steps=sizes.teacher_steps, seed=0, progress=progress)
    weights = out / "phantom-teacher.safetensors"
    save_file({name: value.contiguous() for name, value in teacher.tower.state_dict().items()}, weights)
    held_out = _held_out(sizes, progress)
    return MadeTeacher(
        accuracy={look: teacher.accuracy(corpus) for look, corpus in held_out.items()},
        attention={look: lesion_attention(weights, corpus) for look, corpus in held_out.items()},
    )


def make_student(out: Path, sizes: AssetSizes, progress: Progress, *, both_looks: bool = False) -> MadeStudent:
    """Train the student base on phantoms without a shift (or of both looks), write it to `out`, and measure it."""
    torch.set_num_threads(1)
    corpus = _draw(TRAINING_SERIES, sizes.usual, progress)
    if both_looks:
        corpus = joined(corpus, _draw(TRAINING_SERIES, sizes.shifted, progress, first=sizes.usual, shift=SHIFT))
    student = pretrain_student(
        corpus, tower_steps=sizes.tower_steps, steps=sizes.language_steps, seed=0, progress=progress
    )
    for part in (student.model, student.tokenizer, student.processor):
        part.save_pretrained(out / "phantom-student")
    held_out = _held_out(sizes, progress)
    return MadeStudent(
        tower={look: student.tower_accuracy(corpus) for look, corpus in held_out.items()},
        final_loss=student.final_loss,
    )


def _held_out(sizes: AssetSizes, progress: Progress) -> dict[str, Corpus]:
    return {look: _draw(HELD_OUT_SERIES, sizes.held_out, progress, shift=shift) for look, shift in LOOKS.items()}


def _draw(series: int, count: int, progress: Progress, *, first: int = 0, shift: float = 0.0) -> Corpus:
    return draw_corpus(series, count, CLIP_MEAN, CLIP_STD, progress, first=first, shift=shift)


def lesion_attention(weights: Path, corpus: Corpus) -> LesionAttention:
    """Compare the attention of the teacher in `weights` with the masks of lesions."""
    teacher = load_teacher("phantom-tiny", weights)
    chosen = [index for index, phantom in enumerate(corpus.phantoms) if phantom.lesions]
    attention = torch.cat([teacher.forward(part).attention for part in corpus.pixels[chosen].split(100)])
    masks = [torch.from_numpy(corpus.phantoms[index].lesion_mask) for index in chosen]
    coverage = torch.stack([region_coverage(mask, teacher.spec.grid) for mask in masks])
    return LesionAttention(
        inside=float(attention_mass_inside(attention, coverage).mean()),
        chance=float(mass_expected_by_chance(coverage).mean()),
        pointing=float(pointing_hit(attention, coverage).mean()),
    )


def _readme(sizes: AssetSizes, teacher: MadeTeacher, student: MadeStudent, seconds: float) -> str:
    accuracies = {f"teacher, {look}": accuracy for look, accuracy in teacher.accuracy.items()}
    accuracies |= {f"student's vision tower, {look}": accuracy for look, accuracy in student.tower.items()}
    slots, looks = _rows(accuracies), _rows(teacher.attention)
    return f"""# Assets of the demo

Two tiny models trained only on synthetic phantoms, without any patient data.
License: Apache-2.0, like the rest of medalign.

- `phantom-teacher.safetensors`: image tower of the teacher `phantom-tiny` (open_clip's VisionTransformer with a \
convolutional stem). It saw phantoms with and without a shift. Its patches learned from captions and from masks what \
they show, its class token only from captions which lesion there is, and where.
- `phantom-student/`: a transformers Llava, the student base. It never saw a phantom with a shift: its language model \
is good, and its vision tower reads phantoms without a shift well and others badly. The tower learned from captions \
and masks, the language model from all questions.
- `phantom-study.json`: what the phantom study found over 8 seeds, as `medalign study` wrote it \
(docs/phantom-study.md); the command below does not make it.

Made by `python -m medalign.pipeline.demo.make_assets --out DIR` in {seconds / 60:.0f} minutes (two processes): series \
{TRAINING_SERIES}, {sizes.usual} phantoms without a shift and {sizes.shifted} with a shift of {SHIFT}.

Fraction of caption slots filled correctly on {sizes.held_out} held-out phantoms of each look (series \
{HELD_OUT_SERIES}):

| | all slots, from patches | lesion, from patches | lesion, from the class token |
| --- | --- | --- | --- |
{slots}

The attention of the teacher's class token on the held-out phantoms with a lesion:

| | inside lesions | chance | strongest cell touches a lesion |
| --- | --- | --- | --- |
{looks}

The student's language model ended at {student.final_loss:.3f} nats per answer token.
"""


def _rows(measured: dict[str, SlotAccuracy] | dict[str, LesionAttention]) -> str:
    return "\n".join(
        f"| {name} | " + " | ".join(f"{value:.3f}" for value in asdict(values).values()) + " |"
        for name, values in measured.items()
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the assets to")
    make_assets(parser.parse_args().out, AssetSizes(), PrintedNotes())

"""The demo's teacher: the phantom-tiny tower, trained from scratch on phantoms with and without a shift."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...progress import Progress
from ...teacher_cache.teachers import teacher_spec
from ...teacher_cache.teachers.towers import build_tower
from .cell_targets import cell_targets
from .corpus import Corpus
from .slot_training import Encode, SlotAccuracy, SlotHeads, slot_accuracy, train_on_slots

FINDINGS = ("lesion", "site")
"""Slots that the class token must predict, so that it attends to lesions; patches predict all slots."""
LEARNING_RATE = 2e-3


@dataclass(frozen=True, kw_only=True)
class TrainedTeacher:
    """A tower and the heads that it was trained with, which are not kept."""

    tower: nn.Module
    heads: SlotHeads

    def accuracy(self, held_out: Corpus) -> SlotAccuracy:
        with tokens_of(self.tower) as encode:
            return slot_accuracy(self.heads, encode, held_out)


def pretrain_teacher(corpus: Corpus, *, steps: int, seed: int, progress: Progress) -> TrainedTeacher:
    """Train the tower from scratch; seeded."""
    spec = teacher_spec("phantom-tiny")
    torch.manual_seed(seed)
    tower = build_tower(spec)
    with tokens_of(tower) as encode:
        heads = train_on_slots(
            tower,
            encode,
            spec.width,
            corpus,
            steps=steps,
            batch_size=16,
            learning_rate=LEARNING_RATE,
            seed=seed,
            label="teacher",
            progress=progress,
            told_by_class=FINDINGS,
            cells=cell_targets(corpus, spec.grid),
        )
    return TrainedTeacher(tower=tower, heads=heads)


@contextmanager
def tokens_of(tower: nn.Module) -> Iterator[Encode]:
    """Class and patch tokens after the last block, which E_v uses."""
    seen: list[Tensor] = []
    blocks = tower.get_submodule("transformer")
    handle = blocks.register_forward_hook(lambda module, args, output: seen.append(output))

    def encode(pixels: Tensor) -> tuple[Tensor, Tensor]:
        seen.clear()
        tower(pixels)
        tokens = seen.pop()
        return tokens[:, 0], tokens[:, 1:]

    try:
        yield encode
    finally:
        handle.remove()

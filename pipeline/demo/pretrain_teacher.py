"""The demo's teacher: the phantom-tiny tower, trained from scratch on captions of phantoms."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...progress import Progress
from ...teacher_cache.teachers import teacher_spec
from ...teacher_cache.teachers.towers import build_tower
from .corpus import SLOTS, Corpus
from .slot_training import Encode, SlotAccuracy, slot_accuracy, train_on_slots

FINDINGS = ("lesion", "site")
"""Slots that the class token must predict in the second phase, so that it attends to lesions."""


def pretrain_teacher(
    corpus: Corpus, held_out: Corpus, *, steps: tuple[int, int], seed: int, progress: Progress
) -> tuple[nn.Module, SlotAccuracy]:
    """Train the tower in two phases, on all slots and then with the class token on findings; seeded.

    Returns the tower and its held-out accuracy.
    """
    spec = teacher_spec("phantom-tiny")
    torch.manual_seed(seed)
    tower = build_tower(spec)
    phases = (("teacher", tuple(SLOTS), 1.5e-3), ("teacher, findings", FINDINGS, 1e-3))
    with _tokens_of(tower) as encode:
        for (label, told_by_class, learning_rate), count in zip(phases, steps, strict=True):
            heads = train_on_slots(
                tower,
                encode,
                spec.width,
                corpus,
                steps=count,
                batch_size=16,
                learning_rate=learning_rate,
                seed=seed,
                label=label,
                progress=progress,
                told_by_class=told_by_class,
            )
        accuracy = slot_accuracy(heads, encode, held_out)
    return tower, accuracy


@contextmanager
def _tokens_of(tower: nn.Module) -> Iterator[Encode]:
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

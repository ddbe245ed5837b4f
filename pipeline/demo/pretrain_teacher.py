"""The demo's teacher: the phantom-tiny tower, trained from nothing on what captions say of phantoms."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...progress import Progress
from ...teacher_cache.teachers import teacher_spec
from ...teacher_cache.teachers.towers import build_tower
from .corpus import Corpus
from .slot_training import Encode, SlotAccuracy, slot_accuracy, train_on_slots


def pretrain_teacher(
    corpus: Corpus, held_out: Corpus, *, steps: int, seed: int, progress: Progress
) -> tuple[nn.Module, SlotAccuracy]:
    """Train the tower; returns it with its held-out accuracy."""
    spec = teacher_spec("phantom-tiny")
    torch.manual_seed(seed)
    tower = build_tower(spec)
    with _tokens_of(tower) as encode:
        heads = train_on_slots(
            tower,
            encode,
            spec.width,
            corpus,
            steps=steps,
            batch_size=16,
            learning_rate=1.5e-3,
            seed=seed,
            label="teacher",
            progress=progress,
        )
        accuracy = slot_accuracy(heads, encode, held_out)
    return tower, accuracy


@contextmanager
def _tokens_of(tower: nn.Module) -> Iterator[Encode]:
    """Class and patch tokens after the last block, which is where E_v is taken."""
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

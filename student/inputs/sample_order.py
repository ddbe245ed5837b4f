"""The order of samples: a function of the seed and the epoch alone, so that any run can be gone on with anywhere."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

POOL_STEPS = 50
"""Samples of so many steps are sorted by length together: enough that lengths in a step are near each other."""


class EpochOrder(Sampler[int]):
    """Random order; with lengths, samples of about one length share an optimiser step.

    Numbers from `samples` on, up to a multiple of `multiple`, come last: see `FilledDataset`.
    """

    def __init__(
        self, samples: int, *, lengths: Sequence[int] | None, step_samples: int, multiple: int, seed: int
    ) -> None:
        self._samples = samples
        self._lengths = lengths
        self._step_samples = step_samples
        self._multiple = multiple
        self._seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return rounded_up(self._samples, self._multiple)

    def __iter__(self) -> Iterator[int]:
        # An odd multiplier keeps neighbouring seeds from sharing their epochs.
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.randperm(self._samples, generator=generator).tolist()
        if self._lengths is not None:
            order = _group_by_length(order, self._lengths, self._step_samples, generator)
        yield from order
        yield from range(self._samples, len(self))


def rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _group_by_length(
    order: list[int], lengths: Sequence[int], step_samples: int, generator: torch.Generator
) -> list[int]:
    """Sort pools of samples by length, cut them into steps, and shuffle the steps.

    The longest step comes first, so that memory that is too small shows at once.
    """
    pool = step_samples * max(1, min(POOL_STEPS, len(order) // (4 * step_samples)))
    pools = [sorted(order[i : i + pool], key=lambda index: -lengths[index]) for i in range(0, len(order), pool)]
    steps = [part[i : i + step_samples] for part in pools for i in range(0, len(part), step_samples)]
    rest = steps.pop() if len(steps[-1]) < step_samples else []  # the step that is not full stays the last one
    steps = [steps[i] for i in torch.randperm(len(steps), generator=generator).tolist()]
    if steps:
        longest = max(range(len(steps)), key=lambda i: max(lengths[index] for index in steps[i]))
        steps[0], steps[longest] = steps[longest], steps[0]
    return [index for step in [*steps, rest] for index in step]

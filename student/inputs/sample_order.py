"""The order of samples: a function of seed and epoch only, so that a run can be resumed at any step."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

POOL_STEPS = 50
"""Number of steps whose samples are sorted by length together; enough for similar lengths within a step."""


class SampleOrder(Sampler[int]):
    """An order of samples that may depend on the epoch."""

    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        raise NotImplementedError


class EpochOrder(SampleOrder):
    """Random order; with `lengths`, samples of similar length share an optimizer step.

    Indices from `samples` up to the next multiple of `multiple` come last: see `FilledDataset`.
    """

    def __init__(
        self, samples: int, *, lengths: Sequence[int] | None, step_samples: int, multiple: int, seed: int
    ) -> None:
        self._samples = samples
        self._lengths = lengths
        self._step_samples = step_samples
        self._multiple = multiple
        self._seed = seed

    def __len__(self) -> int:
        return rounded_up(self._samples, self._multiple)

    def __iter__(self) -> Iterator[int]:
        # The multiplier keeps adjacent seeds from sharing epochs.
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

    The longest step comes first, so that an out-of-memory error occurs at once.
    """
    pool = step_samples * max(1, min(POOL_STEPS, len(order) // (4 * step_samples)))
    pools = [sorted(order[i : i + pool], key=lambda index: -lengths[index]) for i in range(0, len(order), pool)]
    steps = [part[i : i + step_samples] for part in pools for i in range(0, len(part), step_samples)]
    rest = steps.pop() if len(steps[-1]) < step_samples else []  # an incomplete step stays last
    steps = [steps[i] for i in torch.randperm(len(steps), generator=generator).tolist()]
    if steps:
        longest = max(range(len(steps)), key=lambda i: max(lengths[index] for index in steps[i]))
        steps[0], steps[longest] = steps[longest], steps[0]
    return [index for step in [*steps, rest] for index in step]

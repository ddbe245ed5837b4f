"""NaN and infinity: non-finite losses and gradients end a run, and non-finite weights are not written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import MedalignError
from ..plain_text import as_typed


def is_finite(value: Tensor) -> bool:
    """Whether all values are finite; checks the minimum and maximum, which needs no copy of the tensor."""
    if not value.is_floating_point() or value.numel() == 0 or value.is_meta:
        return True
    return bool(torch.stack(torch.aminmax(value.detach())).isfinite().all())


def count_non_finite(values: Mapping[str, Tensor]) -> dict[str, int]:
    """Count the NaN and infinite values of each tensor that has any, by name."""
    counts: dict[str, int] = {}
    for name, value in values.items():
        if not is_finite(value):
            counts[name] = int((~torch.isfinite(value)).sum())
    return counts


def check_finite(values: Mapping[str, Tensor], consequence: str, remedy: str) -> None:
    """Check that all weights are finite.

    Args:
        values: weights by name.
        consequence: what is not done because of the error, for example "no adapter was written to ...".
        remedy: what the user can do.

    Raises:
        MedalignError: some are NaN or infinite; the message names the first tensor and the number of values.
    """
    counts = count_non_finite(values)
    if counts:
        name, number = next(iter(counts.items()))
        others = f" and values in {len(counts) - 1} other tensors" if len(counts) > 1 else ""
        raise MedalignError(
            f"{number} of {values[name].numel()} values in {name}{others} are NaN or infinite: {consequence}. {remedy}"
        )


def not_finite_error(
    moment: str, names: Sequence[str], *, rate: float, precision: str, checkpoint: Path | None, store: str | None
) -> MedalignError:
    """Create the error for the first loss or gradient in a run that is NaN or infinite.

    Args:
        moment: the step or evaluation.
        names: losses or gradients that are not finite.
        rate: learning rate of the step.
        precision: precision of the forward pass.
        checkpoint: the last complete checkpoint; None if there is none yet.
        store: location of the teacher store; None if no store is used.
    """
    remedies = ["a lower training.learning_rate"]
    if precision != "float32":
        remedies.append("student.dtype bfloat16 or float32" if precision == "float16" else "student.dtype float32")
    if store is not None:
        remedies.append(f"`medalign store verify {as_typed(store)}`, which finds damaged targets")
    kept = "there is no checkpoint yet" if checkpoint is None else f"the last good checkpoint is {checkpoint}"
    return MedalignError(
        f"{moment}: {' and '.join(names)} {'are' if len(names) > 1 else 'is'} NaN or infinite (learning rate {rate:g}, "
        f"precision {precision}). Training was stopped and no adapter was written; {kept}. Start a new run with "
        f"another --out, and try: {'; '.join(remedies)}"
    )

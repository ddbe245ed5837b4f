"""How the page of an evaluation shows intervals: marked if from few images, and why there is none."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ...evaluation.comparison.table_entries import DOUBLE_DAGGER
from ...evaluation.statistics import FEW_IMAGES
from .evaluation_scores import Estimate
from .wording import percent, span

_NONE: Final = "\N{EN DASH}"


def interval_cells(found: Estimate) -> tuple[Any, ...]:
    """Cells of a table: value, interval, questions and images."""
    interval = span(found.low, found.high)
    mark = DOUBLE_DAGGER if interval and found.images < FEW_IMAGES else ""
    return percent(found.value), f"{interval}{mark}" if interval else _NONE, found.questions, found.images


def interval_notes(found: Sequence[Estimate]) -> Iterator[str]:
    """What the marks in the column of intervals mean, if there are any."""
    if any(each.low is not None and each.images < FEW_IMAGES for each in found):
        yield (
            f"{DOUBLE_DAGGER}: from fewer than {FEW_IMAGES} images; the interval is widened, and results from so few "
            "images hardly generalize."
        )
    if any(each.low is None for each in found):
        yield f"{_NONE}: no interval, because there is only one image, or all images have the same score."

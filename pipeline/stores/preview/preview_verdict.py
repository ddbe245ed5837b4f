"""The verdict on a store in sentences, and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ....plain_text import counted
from .image_fit import ImageFit
from .odd_rows import BROKEN, broken_rows, count_flaws, largest_unseen_share, named_flaws
from .row_sample import RowSummary
from .wrong_images import FALSE_ALARMS, FEWEST_ROWS, WrongRow

FEWEST_FITTED: Final = 20
"""Rows with images from which it is judged whether rows fit their images."""
_SIGNIFICANT: Final = 0.005
_WEAK: Final = 0.75
"""Share of preferred pairs below which a significant fit is weak."""
_MOST_EQUAL: Final = 0.05
"""Share of all rows that may equal the row of another image."""

FitState = Literal["fits", "weak", "does not fit", "too few", "not checked"]
Look = Literal["sound", "odd", "broken"]


@dataclass(frozen=True, slots=True)
class FitVerdict:
    """Whether rows fit their images."""

    state: FitState
    sentence: str


@dataclass(frozen=True, slots=True)
class StoreVerdict:
    """What the rows look like; `odd`: something to look at, which may have a reason."""

    look: Look
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def judge_fit(fit: ImageFit | None, rows: int, asked: bool) -> FitVerdict:
    """Whether rows fit their images; `rows` have a readable image and no flaw, `asked`: images were given."""
    what = "Not checked: whether rows belong to their images"
    if not asked:
        return FitVerdict(
            "not checked",
            f"{what}. Without images, permuted rows look sound; pass --images FOLDER or --manifest FILE.",
        )
    if fit is None:
        subject = counted(rows, "row without a flaw has an image", "rows without a flaw have an image")
        return FitVerdict("too few", f"{what}. Only {subject} at hand, and {FEWEST_FITTED} are needed.")
    numbers = (
        f"a row agrees better with its own image than with that of another row in {100 * fit.preferred:.1f} % of the "
        f"pairs, by chance in 50 % (permutation test with {rows} rows: p = {fit.p_value:.2g})"
    )
    if fit.p_value > _SIGNIFICANT:
        return FitVerdict("does not fit", f"The rows do not fit their images: permuted, or of other images; {numbers}.")
    if fit.preferred < _WEAK:
        return FitVerdict("weak", f"The rows fit their images only weakly, so many may be of other images; {numbers}.")
    return FitVerdict("fits", f"The rows fit their images: {numbers}.")


def judge_store(
    rows: Sequence[RowSummary], total: int, equal: int, fit: FitVerdict, wrong: Sequence[WrongRow], visible: float
) -> StoreVerdict:
    """The verdict on a store.

    Args:
        rows: The rows that were read, with all their flaws.
        total: Number of rows of the store.
        equal: How many of these equal the row of an image with other pixels.
        fit: Whether the rows fit their images.
        wrong: Rows that belong to another image.
        visible: Share of the pairs of rows whose exchange would be seen; nan if single rows were not judged.
    """
    broken = broken_rows(rows)
    unusual = {kind: number for kind, number in count_flaws(rows).items() if kind not in BROKEN}
    is_broken = bool(broken or wrong) or fit.state == "does not fit" or equal > _MOST_EQUAL * total
    look: Look = "broken" if is_broken else "odd" if unusual or equal or fit.state == "weak" else "sound"
    sentences = [
        {
            "broken": "This store looks broken: do not train with it.",
            "odd": "No row is broken, but there is something to look at.",
            "sound": "The rows look sound.",
        }[look],
        _about_rows(rows, total),
    ]
    if unusual:
        sentences.append(f"Unusual, which can have a reason: {named_flaws(unusual)}.")
    if equal:
        subject = counted(equal, "row equals", "rows equal")
        sentences.append(f"{subject} the row of an image with other pixels (all {total:,} rows were compared).")
    return StoreVerdict(look, (*sentences, fit.sentence, *_about_single_rows(fit, wrong, visible)))


def _about_rows(rows: Sequence[RowSummary], total: int) -> str:
    broken = broken_rows(rows)
    read = f"all {counted(total, 'row')}" if len(rows) == total else f"{len(rows):,} of {counted(total, 'row')}"
    if broken:
        named = named_flaws({kind: number for kind, number in count_flaws(rows).items() if kind in BROKEN})
        return f"Broken rows: {len(broken):,} of the {len(rows):,} that were read ({read}): {named}."
    sentence = f"Read: {read}; none is zero, constant, saturated or unreadable, and no E_a is in one cell or uniform."
    if len(rows) < total and rows:
        share = 100 * largest_unseen_share(len(rows))
        sentence += (
            f" If {share:.2g} % of the rows or more were, a random sample of this size would show one with a "
            "probability of 95 %."
        )
    return sentence


def _about_single_rows(fit: FitVerdict, wrong: Sequence[WrongRow], visible: float) -> list[str]:
    if fit.state not in ("fits", "weak"):
        return []
    if visible != visible:
        return [f"Single rows were not compared with other images: that needs {FEWEST_ROWS} rows with images."]
    if wrong:
        subject = counted(len(wrong), "row belongs", "rows belong")
        alarms = f"{100 * FALSE_ALARMS:.0f} % of sound samples have a false alarm"
        return [f"{subject} to another image than its own ({alarms})."]
    return [
        f"No single row fits another image of the sample better than its own; two exchanged rows would be seen in "
        f"{100 * visible:.0f} % of the pairs."
    ]

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
"""Rows with images from which it is judged whether rows match their images."""
_SIGNIFICANT: Final = 0.005
_WEAK: Final = 0.75
"""Share of preferred pairs below which a significant fit is weak."""
_MOST_EQUAL: Final = 0.05
"""Share of all rows that may equal the row of another image."""

FitState = Literal["fits", "weak", "does not fit", "too few", "not checked"]
Look = Literal["sound", "odd", "broken"]


@dataclass(frozen=True, slots=True)
class FitVerdict:
    """Whether rows match their images."""

    state: FitState
    claim: str
    evidence: str = ""
    """Numbers behind the claim."""

    @property
    def sentence(self) -> str:
        """The claim and its evidence."""
        return f"{self.claim} {self.evidence}".strip()


@dataclass(frozen=True, slots=True)
class StoreVerdict:
    """What the rows look like; `odd`: something to look at, which may have a reason."""

    look: Look
    sentences: tuple[str, ...]
    reasons: tuple[str, ...]
    """What is broken."""
    single_rows: str = ""
    """The sentence about single rows and the images of others; empty if the rows do not fit."""

    @property
    def lead(self) -> str:
        """The headline, with the reasons of a broken store."""
        return " ".join([self.sentences[0], *self.reasons])


def judge_fit(fit: ImageFit | None, rows: int, asked: bool) -> FitVerdict:
    """Whether rows match their images; `rows` have a readable image and no flaw, `asked`: images were given."""
    what = "Not checked: whether rows belong to their images"
    if not asked:
        return FitVerdict(
            "not checked",
            f"{what}. Without images, permuted rows look sound; pass --images FOLDER or --manifest FILE.",
        )
    if fit is None:
        subject = counted(rows, "row without a flaw has an image", "rows without a flaw have an image")
        return FitVerdict("too few", f"{what}. Only {subject} available; {FEWEST_FITTED} are needed.")
    evidence = (
        f"A row agrees better with its own image than with that of another row in {100 * fit.preferred:.1f} % of the "
        f"pairs (50 % is chance). With the images of the {rows} rows in random order, {chance_words(fit)}."
    )
    if fit.p_value > _SIGNIFICANT:
        claim = "The rows do not match their images: permuted, or of other images."
        return FitVerdict("does not fit", claim, evidence)
    if fit.preferred < _WEAK:
        claim = "The rows match their images only weakly, so many may be of other images."
        return FitVerdict("weak", claim, evidence)
    return FitVerdict("fits", "Taken together, the rows match their images.", evidence)


def chance_words(fit: ImageFit) -> str:
    """How often images in random order agree as well as the rows' own, with the p-value."""
    orders, better = len(fit.permuted), round(fit.p_value * (1 + len(fit.permuted))) - 1
    if better:
        return f"{better} of {orders} orders agreed as well or better (p = {fit.p_value:.2g})"
    return f"none of {orders} orders agreed as well (p = {fit.p_value:.2g}, the smallest that {orders} orders can show)"


def judge_store(
    rows: Sequence[RowSummary],
    total: int,
    equal: int,
    fit: FitVerdict,
    wrong: Sequence[WrongRow],
    visible: float,
    is_random: bool,
) -> StoreVerdict:
    """The verdict on a store.

    Args:
        rows: The rows that were read, with all their flaws.
        total: Number of rows of the store.
        equal: How many of these equal the row of an image with other pixels.
        fit: Whether the rows match their images.
        wrong: Rows that belong to another image.
        visible: Share of the pairs of rows whose exchange would be seen; nan if single rows were not judged.
        is_random: Whether the rows were drawn from all rows of the store.
    """
    broken = broken_rows(rows)
    unusual = {kind: number for kind, number in count_flaws(rows).items() if kind not in BROKEN}
    about_rows, about_equal = _about_rows(rows, total, is_random), _about_equal(equal, total)
    about_single = _about_single_rows(fit, wrong, visible)
    reasons = [about_rows] * bool(broken)
    reasons += [about_equal] * (equal > _MOST_EQUAL * total)
    reasons += [fit.claim] * (fit.state == "does not fit")
    reasons += [about_single] * bool(wrong)
    look: Look = "broken" if reasons else "odd" if unusual or equal or fit.state == "weak" else "sound"
    sentences = [_headline(look, fit), about_rows]
    if unusual:
        sentences.append(f"Unusual, possibly for a good reason: {named_flaws(unusual)}.")
    sentences += [about_equal, fit.sentence, about_single]
    return StoreVerdict(look, tuple(filter(None, sentences)), tuple(reasons), about_single)


def _headline(look: Look, fit: FitVerdict) -> str:
    if look == "broken":
        return "This store looks broken: do not train with it."
    if fit.state == "weak":
        return "The rows match their images only weakly."
    start = "The rows look sound" if look == "sound" else "There are unusual rows to look at. The others look sound"
    if fit.state == "fits":
        return f"{start}, and match their images."
    return f"{start}. It was not checked whether they belong to their images."


def _about_equal(equal: int, total: int) -> str:
    subject = counted(equal, "row equals", "rows equal")
    return f"{subject} the row of another image (all {total:,} rows were compared)." if equal else ""


def _about_rows(rows: Sequence[RowSummary], total: int, is_random: bool) -> str:
    broken = broken_rows(rows)
    every = "the only row" if total == 1 else f"all {total:,} rows"
    read = every if len(rows) == total else f"{len(rows):,} of {total:,} rows"
    if broken:
        named = named_flaws({kind: number for kind, number in count_flaws(rows).items() if kind in BROKEN})
        if len(broken) == len(rows) == total:
            return f"{every[0].upper()}{every[1:]} {'is' if total == 1 else 'are'} broken: {named}."
        others = read if len(rows) == total else f"the {len(rows):,} rows that were read"
        return f"{len(broken):,} of {others} {'is' if len(broken) == 1 else 'are'} broken: {named}."
    sentence = f"Read: {read}; no row is zero, constant, saturated or unreadable, and no E_a is in one cell or uniform."
    if len(rows) < total and not is_random:
        sentence += " Rows with an image were read first, so the others may differ."
    elif len(rows) < total and rows:
        share = 100 * largest_unseen_share(len(rows))
        sentence += (
            f" If {share:.2g} % of the rows or more were, a random sample of this size would show one with a "
            "probability of 95 %."
        )
    return sentence


def _about_single_rows(fit: FitVerdict, wrong: Sequence[WrongRow], visible: float) -> str:
    if fit.state not in ("fits", "weak"):
        return ""
    if visible != visible:
        return (
            f"Single rows were not compared with other images: that needs {FEWEST_ROWS} rows that match their images."
        )
    if wrong:
        subject = counted(len(wrong), "single row does not match its image", "single rows do not match their images")
        alarms = f"{100 * FALSE_ALARMS:.0f} % of sound samples have a false alarm"
        return f"{subject}, but those of other rows, or none ({alarms})."
    return (
        "No single row matches another image of the sample far better than its own; a swap of two rows would be "
        f"detected in {100 * visible:.0f} % of the pairs."
    )

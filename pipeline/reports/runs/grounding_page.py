"""The page of `medalign student ground`: attention on annotated regions over layers, and over images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from ....choices import DataUse
from ....plain_text import counted
from ...evaluation.grounding.ground import read_grounding
from ...evaluation.grounding.layer_statistics import LayerFinding
from ...evaluation.grounding.measures import MEASURES
from ...evaluation.statistics import Difference, few_images_warnings
from ...runs.answer_log import RUN_FILE
from ...runs.run_inputs import RunInputs
from ...runs.run_record import read_run
from ..figures.figure import Figure
from ..page import Page, Section, State, Table
from .grounding_figures import (
    TITLES,
    SavedGrounding,
    change_figure,
    layer_rows,
    layers_figure,
    others_clause,
    read_findings,
)
from .grounding_overlays import overlay_figures
from .run_facts import run_facts, student_name
from .run_questions import RunQuestions, find_questions
from .wording import percent, points, sharing_notice, span, warning_texts

_MEASURES: Final = (
    "Attention inside the region: the share of the attention on the image that is inside the region. Pointing game: "
    "whether the cell with the highest attention overlaps the region. Energy IoU: intersection over union of the "
    "region and the smallest set of cells with half of the attention.",
    "Uniform attention is a weak baseline, because organs are in the middle of images. So another line has the same "
    "regions with the attention to other images of the same modality that have them: only a value above it shows that "
    "the student used this image.",
)

_NUMBERS_TEXT: Final = (
    "*: significantly different from attention to other images. Parentheses: 95 % intervals over images."
)


def grounding_page(out: Path, given: RunInputs | None = None) -> Page:
    """The page of a finished grounding run; `given`: where its manifest is now.

    Raises:
        InputError: A file of the run is missing or damaged, or a `given` manifest is not that of the run.
    """
    saved, table, run = read_findings(out), read_grounding(out), read_run(out / RUN_FILE)
    questions = find_questions(out, table["question_id"].unique().to_list(), given)
    pictures = overlay_figures(out, saved, table, questions)
    name = student_name(run)
    warnings = list(saved.warnings or few_images_warnings(saved.findings.images))
    shared = _shared(saved, table)
    lead, state = _lead(saved, shared)
    return Page(
        title=f"Grounding of {name}",
        lead=lead + (" Read the warnings first." if warnings else ""),
        state=state,
        notice=_notice(pictures, questions.data_use),
        facts=run_facts(run, {}) | _facts(saved, table),
        sections=tuple(_sections(saved, shared, pictures, questions, warnings)),
    )


def _shared(saved: SavedGrounding, table: pl.DataFrame) -> int:
    """The number of questions whose regions another image of the modality has too."""
    return table.filter((pl.col("layer") == saved.layer) & pl.col("mass_other").is_not_null()).height


def _lead(saved: SavedGrounding, shared: int) -> tuple[str, State]:
    found = saved.findings.at(saved.layer, "mass")
    interval = "" if found.interval is None else span(found.interval.low, found.interval.high)
    inside = percent(found.value) + (f" (95\N{NO-BREAK SPACE}% interval {interval})" if interval else "")
    about = f"{counted(saved.questions, 'question')} about {counted(saved.findings.images, 'image')}"
    text = (
        f"At {saved.layer_name}, {inside} of the attention on the image is inside the region that a question is about "
        f"({about}). Uniform attention has {percent(saved.findings.chance['mass'])} there"
    )
    text += f"{_with_others(found, saved.questions, shared)}."
    beyond, state = found.beyond_other, _state(found.beyond_other)
    if beyond is None:
        text += " No other image has the same regions, so the part that depends on the image is not known."
    elif state == "neutral":
        text += (
            f" No significant difference from other images ({_difference(beyond)}): nothing shows that the student "
            "looks at the region because of the image."
        )
    else:
        more = "more" if beyond.mean > 0 else "less"
        text += f" That is significantly {more} than with other images ({_difference(beyond)})."
    return text + _change(saved), state


def _with_others(found: LayerFinding, questions: int, shared: int) -> str:
    """What other images have, and this image on the same questions where those are not all."""
    if found.other is None or found.beyond_other is None:
        return ""
    if shared == questions:
        return f", and the attention to other images {percent(found.other)}"
    verb = "has" if shared == 1 else "have"
    return (
        f". Only {counted(shared, 'question')} of the {questions:,} {verb} regions that other images have too: on "
        f"these, {percent(found.other + found.beyond_other.mean)} is inside, and {percent(found.other)} of the "
        "attention to other images"
    )


def _state(beyond: Difference | None) -> State:
    if beyond is None or not beyond.beyond_noise:
        return "neutral"
    return "good" if beyond.mean > 0 else "bad"


def _difference(difference: Difference) -> str:
    interval = span(difference.low, difference.high)
    return points(difference.mean) + (f", {interval}" if interval else "")


def _change(saved: SavedGrounding) -> str:
    """What changed against the other student, in the same layer."""
    found = saved.findings.at(saved.layer, "mass")
    if saved.against is None or found.change is None:
        return ""
    text = f" Compared with {saved.against.name}, the attention inside {_changed(found.change)}"
    if found.change_beyond is not None:
        text += f", and the part that depends on the image {_changed(found.change_beyond)}"
    return f"{text}."


def _changed(change: Difference) -> str:
    if not change.beyond_noise:
        return f"did not change significantly ({_difference(change)})"
    return f"{'rose' if change.mean > 0 else 'fell'} significantly ({_difference(change)})"


def _notice(pictures: list[Figure], data_use: DataUse | None) -> str:
    images = sum(figure.table.height for figure in pictures)
    contents = "numbers about the attention of the student to images of the data set"
    if images:
        contents = f"{counted(images, 'image')} of the data set and the questions about them, here and in the figures"
    return sharing_notice(contents, data_use)


def _sections(
    saved: SavedGrounding, shared: int, pictures: list[Figure], questions: RunQuestions, warnings: list[str]
) -> Iterator[Section]:
    if warnings:
        yield Section(title="Warnings", text=warning_texts(warnings))
    yield Section(title="Layers", text=_MEASURES, figures=[layers_figure(saved, shared)])
    change = change_figure(saved)
    if change is not None:
        yield Section(title="Change", figures=[change], text=[f"Against {saved.against}, on the same questions."])
    chosen = (
        "The questions with the most and the least attention inside their regions, compared with uniform attention: "
        "examples of both ends, which prove nothing about the others."
    )
    missing = questions.missing_pictures()
    if saved.grid is None and not missing:
        missing = "There are no pictures, because the run is from a version that did not record the grid."
    yield Section(title="Images", text=[*([chosen] if pictures else []), *filter(None, [missing])], figures=pictures)
    columns = ["layer", *(name for measure in MEASURES for name in (TITLES[measure.name], "other images"))]
    yield Section(
        title="Numbers of all layers",
        text=[_NUMBERS_TEXT, *(filter(None, [others_clause(saved, shared)]))],
        tables=[Table(columns=columns, rows=list(layer_rows(saved)))],
        folded=True,
    )


def _facts(saved: SavedGrounding, table: pl.DataFrame) -> dict[str, object]:
    left_out = "; ".join(f"{count:,}: {reason}" for reason, count in saved.left_out.items())
    regions = sorted({name for names in table["regions"].to_list() for name in names})
    facts: dict[str, object | None] = {
        "questions": saved.questions,
        "images": saved.findings.images,
        "questions not measured": left_out or "none",
        "regions": ", ".join(regions),
        "image tokens": None if saved.grid is None else str(saved.grid),
        "compared with": None if saved.against is None else str(saved.against),
    }
    return {name: value for name, value in facts.items() if value is not None}

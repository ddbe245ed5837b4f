"""The page of `medalign student evaluate`: scores with intervals, groups, how answers ended, and example questions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from ....plain_text import counted
from ....student.metrics.vqa import KINDS, READINGS, Kind
from ...evaluation.comparison.table_entries import NO_WIDTH
from ...evaluation.scoring import saved_warnings
from ...runs.run_inputs import RunInputs
from ..figures.bars import bars
from ..figures.figure import Figure, figure_name
from ..page import Page, Sample, Section, Table
from .evaluation_cards import cards, samples_text
from .evaluation_intervals import interval_cells, interval_notes
from .evaluation_scores import MEASURED, Estimate, SavedScores, read_scores
from .run_facts import run_facts, student_name
from .run_questions import find_questions
from .wording import listed, percent, points, sharing_notice, span, warning_texts

_MOST_GROUPS: Final = 12
"""Groups of a figure; its table has all of them."""
_FINISHES: Final = {
    "end": "ended by themselves",
    "length": "cut off at the maximum length",
    "empty": "empty",
    "unknown": "not recorded",
}


def evaluation_page(out: Path, given: RunInputs | None = None) -> Page:
    """The page of a finished evaluation; `given`: where its manifest is now.

    Raises:
        InputError: A file of the run is missing or damaged, or a `given` manifest is not that of the run.
    """
    scores = read_scores(out)
    run = scores.metrics["run"]
    questions = find_questions(out, scores.table["question_id"].to_list(), given)
    name = student_name(run)
    shown = cards(scores, questions, run["adapter"] or run["base"])
    contents = f"questions, reference answers and answers of the student, and {_pictures(scores, shown)}"
    warnings = saved_warnings(scores.metrics, scores.table.height, scores.images)
    return Page(
        title=f"Evaluation of {name}",
        lead=_lead(scores, name, warnings),
        state="bad" if warnings else "neutral",
        notice=sharing_notice(contents, questions.data_use),
        facts=_facts(scores),
        sections=tuple(_sections(scores, warnings)),
        samples=shown,
        samples_text=samples_text(scores, shown, questions.missing_pictures()),
    )


def _pictures(scores: SavedScores, shown: Sequence[Sample]) -> str:
    """How many pictures of how many images the cards have."""
    first = dict(scores.table.select("question_id", pl.col("image_hashes").list.first()).iter_rows())
    images = [first[card.name] for card in shown if card.picture is not None]
    if len(set(images)) == len(images):
        return counted(len(images), "image")
    return f"{counted(len(images), 'picture')} of {counted(len(set(images)), 'image')}"


def _lead(scores: SavedScores, name: str, warnings: list[str]) -> str:
    number = counted(scores.table.height, "question")
    sentences = [f"{name} answered {number} about {counted(scores.images, 'image')}."]
    found = {kind: scores.kind(kind, "strict") for kind in KINDS}
    for kind in ("closed", "choice"):
        if (rate := found[kind]) is not None:
            sentences.append(f"{_with_span(rate)} of its answers to {kind} questions are right.")
    if (recall := found["open"]) is not None:
        sentences.append(f"Its answers to open questions have {_with_span(recall)} of the words of the references.")
    if not any(found.values()):
        sentences.append("None of the questions has a strict score.")
    return " ".join([*sentences, _common_answer(scores), "Read the warnings first." if warnings else ""]).strip()


def _common_answer(scores: SavedScores) -> str:
    """Whether the closed accuracy is more than that of one constant answer."""
    frequent = scores.most_frequent_answer()
    if frequent is None or scores.images < 2:
        return ""
    always = f"always answering \N{LEFT DOUBLE QUOTATION MARK}{frequent.answer}\N{RIGHT DOUBLE QUOTATION MARK}"
    gap = frequent.difference
    right = f"{always}, which is right for {percent(frequent.value)}"
    if gap.high - gap.low < NO_WIDTH:  # every image has the same difference, from which no interval can be drawn
        return f"Closed questions: {points(gap.mean)} compared with {right}, about every image, so without an interval."
    interval = f"{points(gap.mean)}, paired by image: 95\N{NO-BREAK SPACE}% interval {span(gap.low, gap.high)}"
    if not gap.beyond_noise:
        return f"Closed questions: no significant difference from {right} ({interval})."
    more = "more" if gap.mean > 0 else "fewer"
    return f"Closed questions: significantly {more} right answers compared with {right} ({interval})."


def _with_span(found: Estimate) -> str:
    interval = span(found.low, found.high)
    return percent(found.value) + (f" (95\N{NO-BREAK SPACE}% interval {interval})" if interval else "")


def _sections(scores: SavedScores, warnings: list[str]) -> Iterator[Section]:
    if warnings:
        yield Section(title="Warnings", text=warning_texts(warnings))
    rows = list(_score_rows(scores))
    if rows:
        yield Section(
            title="Scores",
            text=[
                "Strict scores compare whole words, and count each word of a reference once; reference scores are "
                "computed as in the paper's code. Intervals (95 %) are over the choice of test images.",
                *interval_notes(_every_score(scores)),
            ],
            figures=[_score_figure(scores, rows)],
            tables=[Table(columns=_COLUMNS, rows=rows)],
        )
    if scores.metrics.get("reports"):
        yield _reports(scores)
    groups = {grouping: found for grouping in scores.groupings() if (found := list(scores.by_group(grouping)))}
    if groups:
        yield _groups(groups)
        yield _group_numbers(groups)
    yield _finishes(scores)


_COLUMNS: Final = ("questions", "score", "value", "95 % interval", "questions scored", "images")


def _score_rows(scores: SavedScores) -> Iterator[tuple[Any, ...]]:
    for kind in KINDS:
        for reading in reversed(READINGS):
            found = scores.kind(kind, reading)
            if found is not None:
                yield kind, f"{reading} {MEASURED[kind]}", *interval_cells(found)


def _every_score(scores: SavedScores) -> list[Estimate]:
    found = (scores.kind(kind, reading) for kind in KINDS for reading in READINGS)
    return [each for each in found if each is not None]


def _score_figure(scores: SavedScores, rows: list[tuple[Any, ...]]) -> Figure:
    points = [
        _point("", f"{kind} ({MEASURED[kind]})", reading, found)
        for kind in KINDS
        for reading in reversed(READINGS)
        if (found := scores.kind(kind, reading)) is not None
    ]
    said = listed([f"{kind} {score} {value}" for kind, score, value, *_ in rows])
    return bars(
        name="scores",
        title="Scores by kind of question",
        caption="Bars: 95 % intervals over the choice of test images.",
        alt=f"Bar chart of scores: {said}.",
        points=pl.DataFrame(points, schema_overrides=_POINTS),
        value_label="score (%)",
    )


def _point(panel: str, group: str, series: str, found: Estimate) -> dict[str, Any]:
    low, high = (None if end is None else 100 * end for end in (found.low, found.high))
    ends = {"low": low, "high": high}
    return {"panel": panel, "group": group, "series": series, "value": 100 * found.value} | ends


_POINTS: Final = {"low": pl.Float64(), "high": pl.Float64()}


Groups = Mapping[str, Sequence[tuple[str, Kind, Estimate]]]
"""Column of the questions -> the scores of each of its values."""


def _groups(groups: Groups) -> Section:
    text = (
        "Strict scores of the questions of each kind. Differences between groups are not tested: the more groups, the "
        "more of them differ by chance, and a group of a few images says little."
    )
    return Section(title="Groups", text=[text], figures=[_group_figure(*item) for item in groups.items()])


def _group_figure(grouping: str, found: Sequence[tuple[str, Kind, Estimate]]) -> Figure:
    title = grouping.replace("_", " ")
    order = list(dict.fromkeys(group for group, _, _ in found))
    drawn = [item for item in found if item[0] in order[:_MOST_GROUPS]]
    points = [_point("", group, f"{kind} ({MEASURED[kind]})", each) for group, kind, each in drawn]
    group, kind, least = min(drawn, key=lambda item: item[2].value)
    said = f"the lowest is {percent(least.value)} ({group}, {counted(least.questions, f'{kind} question')})"
    rest = f" The {_MOST_GROUPS} most frequent of {len(order)} groups are drawn." if len(order) > _MOST_GROUPS else ""
    without = ""
    if any(each.low is None for _, _, each in drawn):
        without = " Without an interval: only one image, or the same score for all images."
    return bars(
        name=figure_name(f"scores by {title}"),
        title=f"Scores by {title}",
        caption=f"Bars: 95 % intervals over images; {said}.{without}{rest}",
        alt=f"Bar chart of strict scores for {listed(order)}; {said}.",
        points=pl.DataFrame(points, schema_overrides=_POINTS),
        value_label="strict score (%)",
    )


def _group_numbers(groups: Groups) -> Section:
    tables = [
        Table(
            columns=(grouping.replace("_", " "), "questions", *_COLUMNS[2:]),
            rows=[(group, kind, *interval_cells(each)) for group, kind, each in found],
        )
        for grouping, found in groups.items()
    ]
    notes = list(interval_notes([each for found in groups.values() for _, _, each in found]))
    return Section(title="Numbers of all groups", text=notes, tables=tables, folded=True)


def _reports(scores: SavedScores) -> Section:
    rows, absent = [], []
    for name, found in scores.metrics["reports"].items():
        if "absent" in found:
            absent.append(f"{name} is absent: {found['absent']}")
            continue
        mean = scores.estimate(scores.table[name].to_list()) if name in scores.table.columns else None
        is_mean = mean is not None and found["value"] is not None and abs(mean.value - found["value"]) < 1e-9
        interval = span(mean.low, mean.high, places=2) if mean is not None and is_mean else ""
        rows.append((name, percent(found["value"], 2), interval, found["count"]))
    table = Table(columns=("metric", "value", "95 % interval", "reports"), rows=rows)
    text = (
        "A metric over all reports together, such as BLEU, has no interval here; `medalign student compare` computes "
        "one for every metric."
    )
    return Section(title="Reports", text=[text, *absent], tables=[table] if rows else [])


def _finishes(scores: SavedScores) -> Section:
    counts = scores.metrics["finishes"]
    total = max(1, sum(counts.values()))
    rows = [(title, counts[name], percent(counts[name] / total)) for name, title in _FINISHES.items() if counts[name]]
    limit = scores.metrics["run"]["decoding"]["max_new_tokens"]
    return Section(
        title="How the answers ended",
        text=[f"The maximum length of an answer was {counted(limit, 'token')}."],
        tables=[Table(columns=("answers", "number", "share"), rows=rows)],
    )


def _facts(scores: SavedScores) -> dict[str, object]:
    metrics = scores.metrics
    answers = max(1, scores.table.height)
    cost = {
        "seconds": round(metrics["seconds"], 1),
        "seconds per answer": metrics["seconds"] / answers,
        "forward passes per answer": metrics["forwards"] / answers,
    }
    decoding = metrics["run"]["decoding"]
    settings = ", ".join(f"{name} {value}" for name, value in (decoding.get("settings") or {}).items())
    how = {"decoding": decoding["name"], "decoding settings": settings or "none", "images": scores.images}
    return run_facts(metrics["run"], metrics.get("conditions") or {}) | how | cost

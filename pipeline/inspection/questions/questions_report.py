"""The sections on attention and answers of an inspection, its cards, and their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import polars as pl

from ....progress import Progress
from ....student.metrics.attention_sinks import FEWEST_IMAGES, SINK_FACTOR, SINK_IMAGES
from ...evaluation.grounding.layer_statistics import ALL_LAYERS, GroundingFindings
from ...reports.figures.figure import Figure
from ...reports.figures.small_pictures import small_picture
from ...reports.page import Sample, Section, Table
from ..number_text import change_text, interval_text
from .answer_cards import make_cards
from .answer_changes import AnswerFindings, compare_answers
from .asked_questions import AskedQuestions, TeacherMaps, cell_name
from .attention_figures import mean_maps, region_curves, share_curves
from .attention_measures import AttentionFindings, map_names, measure_attention
from .attention_pictures import card_figure, example_figure, layer_figure
from .finding_sentences import answer_sentences, attention_sentences
from .question_capture import ArmQuestions

_EXAMPLES: Final = 3
"""Questions in the figure of examples."""
_LISTED_CELLS: Final = 12
_SIDE: Final = 158
"""Of a panel in the picture of a card, in pixels; two of them are as wide as the picture is shown."""
_COLUMNS: Final = 2


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class QuestionsReport:
    """What an inspection says about attention and answers."""

    sections: tuple[Section, ...]
    samples: tuple[Sample, ...]
    """One card for each shown question, those that changed for the worse first."""
    cards: tuple[Figure, ...]
    """The figures behind the pictures of the cards, in the order of `shown`."""
    values: dict[str, Any]
    """For inspection.json: `attention` and `answers`."""
    tables: dict[str, pl.DataFrame]
    """By name of the Parquet file without suffix."""
    sentences: tuple[str, ...]
    """The findings in words."""


def report_questions(
    questions: AskedQuestions,
    shown_ids: Sequence[str],
    parts: Mapping[str, ArmQuestions],
    teacher: TeacherMaps | None,
    aligned: Sequence[int],
    progress: Progress,
) -> QuestionsReport:
    """Measure attention and answers of all arms; `parts` has the base first.

    Args:
        questions: The asked questions.
        shown_ids: Ids of the questions with a card.
        parts: What each arm did with the questions.
        teacher: E_a of their images; None without a store.
        aligned: Zero-based aligned layers of the adapters; empty if there are none.
        progress: Shows which arm is measured.

    Raises:
        InputError: The mask of a region is missing or does not fit its image, or an image cannot be read.
    """
    if not questions.layouts:
        return QuestionsReport(sections=(), samples=(), cards=(), values={}, tables={}, sentences=())
    places = {question_id: index for index, question_id in enumerate(questions.frame["question_id"])}
    shown = [places[question_id] for question_id in shown_ids]
    attention = measure_attention(questions, parts, teacher, progress)
    answers = compare_answers(questions.manifest, parts)
    layer = aligned[0] if aligned else next(iter(attention.arms.values())).maps.shape[1] // 2
    cards = [
        card_figure(questions, index, f"sample-{number:03d}", attention.arms, teacher, layer)
        for number, index in enumerate(shown, start=1)
    ]
    pictures = [small_picture(card, side=_SIDE, columns=_COLUMNS) for card in cards]
    alts = [card.alt for card in cards]
    sentences = (*answer_sentences(answers), *attention_sentences(attention))
    return QuestionsReport(
        sections=(
            _attention_section(questions, shown, attention, teacher, aligned, layer),
            _answers_section(answers),
        ),
        samples=make_cards(questions, shown, answers, pictures, alts) if shown else (),
        cards=tuple(cards),
        values={"attention": _attention_values(questions, attention), "answers": _answer_values(answers)},
        tables={"attention": attention.table, "answers": answers.table},
        sentences=sentences,
    )


def _attention_section(
    questions: AskedQuestions,
    shown: Sequence[int],
    found: AttentionFindings,
    teacher: TeacherMaps | None,
    aligned: Sequence[int],
    layer: int,
) -> Section:
    regions = region_curves(found, aligned)
    about = questions.with_regions
    examples = sorted(shown, key=lambda index: (index not in about, list(shown).index(index)))[:_EXAMPLES]
    figures = [
        *([] if regions is None else [regions]),
        share_curves(found, aligned),
        mean_maps(found, questions, layer),
    ]
    if examples:
        figures.append(example_figure(questions, examples, found.arms, teacher, layer))
        figures.append(layer_figure(questions, examples[0], found.arms))
    text = [
        "Attention from the question's tokens to the image's tokens, mean over heads and question tokens, for each "
        "decoder layer; the mean map is the mean of the layers' maps.",
        f"A sink is a token whose share of the attention on the image is above {SINK_FACTOR:g} times that of uniform "
        f"attention on at least {100 * SINK_IMAGES:.0f} % of the images: attention there does not depend on the image "
        "(Xiao et al. 2023; Darcet et al. 2023).",
    ]
    if len(questions.layouts) < FEWEST_IMAGES:
        text.append(f"With fewer than {FEWEST_IMAGES} images, sinks are not reported.")
    elif not any(bool(arm.sinks.any()) for arm in found.arms.values() if arm.sinks is not None):
        text.append("No token is a sink, at any layer of any student.")
    if regions is None:
        text.append("No question names an annotated region of its image, so nothing is measured inside regions.")
    tables = [table for table in (_region_table(found), _sink_table(questions, found)) if table is not None]
    return Section(title="Attention", text=[*text, *attention_sentences(found)], figures=figures, tables=tables)


def _region_table(found: AttentionFindings) -> Table | None:
    """Each arm at the mean over the measures of all layers and in the mean map, the teacher, and chance."""
    rows: list[Sequence[object]] = []
    chance: Mapping[str, float | None] = {}
    for name, arm in found.arms.items():
        if arm.regions is not None and arm.mean_regions is not None:
            chance = arm.regions.chance
            rows.append((f"{name}, all layers", *_region_cells(arm.regions, ALL_LAYERS)))
            rows.append((f"{name}, mean map", *_region_cells(arm.mean_regions, 0)))
    if not rows:
        return None
    if found.teacher is not None:
        rows.append(("teacher (E_a)", *_region_cells(found.teacher, 0)))
    rows.append(("chance", chance["mass"], "", "", chance["pointing"], chance["energy_iou"]))
    return Table(
        columns=("", "share inside", "95 % interval", "change from base", "pointing game", "energy IoU"),
        rows=rows,
        caption="Attention inside the regions that questions are about",
    )


def _region_cells(regions: GroundingFindings, layer: int | str) -> tuple[object, ...]:
    mass = regions.at(layer, "mass")
    interval = "" if mass.interval is None else interval_text(mass.interval.low, mass.interval.high)
    others = (regions.at(layer, name).value for name in ("pointing", "energy_iou"))
    return (mass.value, interval, change_text(mass.change), *others)


def _sink_table(questions: AskedQuestions, found: AttentionFindings) -> Table | None:
    rows = []
    for name, arm in found.arms.items():
        if arm.sinks is None:
            continue
        names = map_names(arm.maps.shape[1])
        for at, title in enumerate(names):
            tokens = arm.sinks[at].nonzero().flatten().tolist()
            if not tokens:
                continue
            share = float(arm.shares["sinks"][:, at].nanmean())
            cells = "; ".join(cell_name(questions.layouts[0], token) for token in tokens[:_LISTED_CELLS])
            more = "" if len(tokens) <= _LISTED_CELLS else f"; and {len(tokens) - _LISTED_CELLS} more"
            rows.append((name, title, len(tokens), len(tokens) / questions.layouts[0].tokens, share, cells + more))
    if not rows:
        return None
    columns = ("arm", "map", "sinks", "part of the tokens", "part of the attention on the image", "cells")
    return Table(columns=columns, rows=rows, caption="Sink tokens by layer; layers without any are left out")


def _answers_section(answers: AnswerFindings) -> Section:
    rows = [
        (
            name,
            *summary.states.values(),
            summary.score,
            change_text(summary.score_change),
            summary.loss_lm,
            change_text(summary.loss_change),
            summary.better,
            summary.worse,
        )
        for name, summary in answers.summaries.items()
    ]
    states = next(iter(answers.summaries.values())).states
    numbers = ("strict score", "change (95 %)", "loss of the reference", "change (95 %)", "better", "worse")
    return Section(
        title="Answers",
        text=[
            "Greedy answers, with the strict score of docs/metrics.md. The loss is the negative log likelihood of the "
            "reference answer, in nats per token. Single questions are at the end of this page, those that changed "
            "most for the worse first.",
            *answer_sentences(answers),
        ],
        tables=[Table(columns=("", *states, *numbers), rows=rows, caption="Answers of each student")],
    )


def _attention_values(questions: AskedQuestions, found: AttentionFindings) -> dict[str, Any]:
    values: dict[str, Any] = {
        "questions": len(questions.layouts),
        "with_regions": len(questions.with_regions),
        "sink_factor": SINK_FACTOR,
        "sink_images": SINK_IMAGES,
        "chance": dict(found.chance),
        "teacher": None if found.teacher is None else found.teacher.values(),
        "arms": {},
    }
    for name, arm in found.arms.items():
        names = map_names(arm.maps.shape[1])
        values["arms"][name] = {
            "shares": {
                share: {title: float(numbers[:, at].nanmean()) for at, title in enumerate(names)}
                for share, numbers in arm.shares.items()
            },
            "sinks": None
            if arm.sinks is None
            else {title: arm.sinks[at].nonzero().flatten().tolist() for at, title in enumerate(names)},
            "regions": None if arm.regions is None else arm.regions.values(),
            "mean_map_regions": None if arm.mean_regions is None else arm.mean_regions.values(),
        }
    return values


def _answer_values(answers: AnswerFindings) -> dict[str, Any]:
    return {"arms": {name: asdict(summary) for name, summary in answers.summaries.items()}}

"""Figures and tables of linear probes."""

from collections.abc import Mapping, Sequence

import polars as pl

from ....student.inspection.token_capture import PIXELS, TEACHER
from ...evaluation.statistics import Interval, bootstrap_interval
from ...reports.figures.figure import Figure
from ...reports.figures.lines import lines
from ...reports.page import Table
from ..number_text import percent
from ..stage_names import AXIS, stage_place, stage_title
from .stage_scores import StageScores
from .verdict import NO_STAGE, RULE, Verdict, percent_lost, place_title, short_verdict


def probe_table(scores: Mapping[tuple[str, str], StageScores], seed: int) -> pl.DataFrame:
    """One row per arm, family and stage: balanced accuracy with its interval, the floor, and the images."""
    rows = []
    for (arm, family), found in scores.items():
        for place, (stage, value) in enumerate(zip(found.stages, found.values(), strict=True)):
            interval = stage_interval(found, place, seed)
            rows.append(
                {
                    "arm": arm,
                    "family": family,
                    "stage": stage,
                    "balanced_accuracy": float(value),
                    "low": interval.low,
                    "high": interval.high,
                    "floor": found.floor(),
                    "images": found.images,
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def stage_interval(scores: StageScores, place: int, seed: int) -> Interval:
    """A 95 % interval of the balanced accuracy at a stage, over images."""
    groups = [str(image) for image in range(len(scores.examples))]
    found = bootstrap_interval(scores.result(place), groups, seed=seed)
    return found or Interval(low=float("nan"), high=float("nan"))


def probe_figure(table: pl.DataFrame, family: str, floor: str) -> Figure:
    """What linear probes of one family read at every stage of every arm, with pixels, teacher and floor as levels."""
    rows = table.filter(pl.col("family") == family)
    own = rows.filter(~pl.col("stage").is_in([PIXELS, TEACHER]))
    places = sorted({stage_place(stage) for stage in own["stage"]})
    drawn = [
        {"panel": "", "series": row["arm"], "x": stage_place(row["stage"]), "y": row["balanced_accuracy"],
         "low": row["low"], "high": row["high"]}
        for row in own.iter_rows(named=True)
    ]  # fmt: skip
    base = rows.filter(pl.col("arm") == rows["arm"][0])
    for row in base.filter(pl.col("stage").is_in([PIXELS, TEACHER])).iter_rows(named=True):
        drawn += [_level(stage_title(row["stage"]), place, row["balanced_accuracy"]) for place in places]
    drawn += [_level(floor, place, rows["floor"][0]) for place in places]
    told = "; ".join(_ends(own.filter(pl.col("arm") == arm)) for arm in own["arm"].unique(maintain_order=True))
    return lines(
        name=f"probes-{family}",
        title=f"What a linear probe reads: {family}",
        caption="Balanced accuracy of linear probes on held-out images; bands: 95 % intervals over "
        f"{rows['images'][0]} images. {floor.capitalize()}: {rows['floor'][0]:.2f}. {told}.",
        alt=f"Balanced accuracy of linear probes for {family}: {told}; {floor} {rows['floor'][0]:.2f}.",
        points=pl.DataFrame(drawn, infer_schema_length=None),
        x_label=AXIS,
        y_label="balanced accuracy",
    )


def loss_table(verdicts: Mapping[tuple[str, str], Verdict]) -> Table:
    """What every stage of every arm loses that no later stage reads."""
    rows = [
        (
            arm,
            family,
            loss.place,
            f"{loss.score_before:.3f} ({stage_title(loss.before)})",
            f"{loss.score_after:.3f} ({stage_title(loss.best_after)})",
            percent_lost(loss),
            "yes" if loss.counts else "no",
        )
        for (arm, family), verdict in verdicts.items()
        for loss in verdict.losses
    ]
    return Table(
        columns=("", "probes", "at", "before", "best from there on", "lost [95 % interval]", "counts as a loss"),
        rows=rows,
        caption=RULE[0].upper() + RULE[1:],
    )


def verdict_table(verdicts: Mapping[tuple[str, str], Verdict]) -> Table:
    """The verdict of every arm and family, with its largest loss."""
    rows = []
    for (arm, family), verdict in verdicts.items():
        largest = max(verdict.losses, key=lambda loss: loss.share)
        rows.append(
            (
                arm,
                family,
                short_verdict(verdict),
                largest.place,
                percent_lost(largest),
                percent(verdict.named),
                _most_frequent_other(verdict),
            )
        )
    return Table(
        columns=(
            *("", "probes", "verdict", "largest loss at", "lost [95 % interval]"),
            *("resamples with this verdict", "most frequent of the others"),
        ),
        rows=rows,
        caption="Verdicts",
    )


def _most_frequent_other(verdict: Verdict) -> str:
    others = [(stage, share) for stage, share in verdict.outcomes.items() if stage != (verdict.place or NO_STAGE)]
    if not others:
        return "-"
    stage, share = others[0]
    return f"{'no stage' if stage == NO_STAGE else place_title(stage)} ({percent(share)})"


def task_table(scores: Sequence[StageScores]) -> Table:
    """What the probes predict: classes and number of examples of every task."""
    rows = [
        (found.family.name, task.name, ", ".join(task.classes), len(task.labels), len(set(task.images.tolist())))
        for found in scores
        for task in found.family.tasks
    ]
    return Table(columns=("probes", "task", "classes", "examples", "images"), rows=rows, caption="Tasks of the probes")


def _level(series: str, place: int, value: float) -> dict[str, object]:
    return {"panel": "", "series": series, "x": place, "y": value, "low": value, "high": value}


def _ends(rows: pl.DataFrame) -> str:
    first, last = rows.row(0, named=True), rows.row(-1, named=True)
    return (
        f"{first['arm']}: {first['balanced_accuracy']:.2f} at the {stage_title(first['stage'])}, "
        f"{last['balanced_accuracy']:.2f} at the {stage_title(last['stage'])}"
    )

"""The page of `medalign study`, from its saved tables."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ....plain_text import as_typed, counted, signed_text
from ....student.file_errors import read_object
from ...data import saved_tables
from ...runs.run_inputs import RunInputs
from ...studies.study_results import DIFFERENCES_FILE, RESAMPLINGS, RESULTS_FILE, VALUES_FILE
from ...studies.trial_choice import CHOICES_FILE
from ..page import Page, Section, State, Strong, Table
from .study_figures import TITLES, Row, difference_figures, excludes_zero, metric_title, value_figures

_PARTS: Final = {"test": "Test questions", "develop": "Development questions"}
METHOD: Final = (
    "A seed stands for a training set, which is drawn anew, the order of training, and initial values. All differences "
    "are paired: the same seeds and the same images on both sides. Intervals over seeds say how the difference varies "
    "with the training set, for these test images; intervals over images how it varies with the test images, for these "
    "trainings; intervals over both draw seeds and images. p is from a randomization test that swaps the two arms "
    "within each seed."
)


def study_page(out: Path, given: RunInputs | None = None) -> Page:
    """The page of a study; it shows no question, so `given` is not used.

    Raises:
        InputError: A file is missing or damaged.
    """
    again = "run `medalign study` with the same specification and --out, which writes it again"
    results, choices = read_object(out / RESULTS_FILE), read_object(out / CHOICES_FILE)["choices"]
    values, differences = (saved_tables.read(out / name, again).rows for name in (VALUES_FILE, DIFFERENCES_FILE))
    lead, state = _lead(results, [row for row in differences.to_dicts() if row["part"] == results["shown"]])
    sections = list(_warnings(results))
    for part, title in _PARTS.items():
        own = [[row for row in table.to_dicts() if row["part"] == part] for table in (values, differences)]
        if own[0]:
            sections += _part_sections(results, part, title, *own)
    sections += _trial_sections(choices)
    sections.append(Section(title="How intervals are computed", text=[METHOD], folded=True))
    return Page(
        title=results["title"],
        lead=lead,
        state=state,
        notice="The page contains no image and no text of a data set, but numbers derived from questions whose "
        f"data-use class is {results['data_use']}.",
        facts=_facts(out, results),
        sections=tuple(sections),
    )


def _lead(results: Mapping[str, Any], rows: Sequence[Row]) -> tuple[str, State]:
    """The primary comparisons in one or two sentences."""
    primary = [
        row for row in rows if row["primary"] and row["resampling"] == "both" and row["metric"] == results["metric"]
    ]
    where = "on the test questions" if results["shown"] == "test" else "on the development questions"
    start = "" if results["shown"] == "test" else "Development only: the test questions were not read. "
    if not primary:
        return f"{start}No primary comparison was named; the tables have all differences {where}.", "neutral"
    better = [row for row in primary if excludes_zero(row) and row["difference"] > 0]
    worse = [row for row in primary if excludes_zero(row) and row["difference"] < 0]
    said = [
        f"{word}: {'; '.join(map(_sentence, found))}."
        for word, found in (("Better", better), ("Worse", worse))
        if found
    ]
    rest = len(primary) - len(better) - len(worse)
    if rest:
        said.append(f"No difference beyond noise in {counted(rest, 'primary comparison')}.")
    state: State = "neutral" if not (better or worse) else "good" if not worse else "bad" if not better else "neutral"
    return f"{start}{metric_title(results['metric']).capitalize()} {where}. {' '.join(said)}", state


def _sentence(row: Row) -> str:
    return f"{row['arm']} against {row['against']} ({row['regime']}) {interval_text(row)}"


def interval_text(row: Row) -> str:
    """A difference with its interval."""
    return f"{signed_text(row['difference'], 3)}{_span(row)}"


def _span(row: Row) -> str:
    return "" if row["low"] is None else f" [{signed_text(row['low'], 3)}, {signed_text(row['high'], 3)}]"


def _part_sections(
    results: Mapping[str, Any], part: str, title: str, values: list[Row], differences: list[Row]
) -> Iterator[Section]:
    folded = part != results["shown"]
    primary = [row for row in differences if row["primary"]]
    if primary:
        yield Section(
            title=f"{title}: primary comparisons", tables=[_difference_table(primary, with_p=True)], folded=folded
        )
    yield Section(
        title=f"{title}: values",
        figures=list(value_figures(values, part)),
        tables=[_value_table(values)],
        folded=folded,
    )
    baseline = results["baseline"]
    against = [row for row in differences if row["against"] == baseline]
    if against:
        yield Section(
            title=f"{title}: differences from {baseline}",
            figures=list(difference_figures(differences, part, baseline)),
            tables=[_difference_table(against, with_p=False)],
            folded=folded,
        )


def _value_table(values: Sequence[Row]) -> Table:
    metrics = list(dict.fromkeys(row["metric"] for row in values))
    cells: dict[tuple[str, str], dict[str, Row]] = {}
    for row in values:
        cells.setdefault((row["regime"], row["arm"]), {})[row["metric"]] = row
    best: dict[tuple[str, str], float] = {}
    for row in values:
        key = (row["regime"], row["metric"])
        best[key] = max(row["value"], best.get(key, row["value"]))
    rows: list[list[object]] = []
    for (regime, arm), found in cells.items():
        rows.append([regime, arm, *(_value_cell(found.get(metric), best) for metric in metrics)])
    return Table(
        columns=["regime", "arm", *map(metric_title, metrics)],
        rows=rows,
        caption="Means over seeds with 95 % intervals over seeds; the highest of each regime in bold",
    )


def _value_cell(row: Row | None, best: Mapping[tuple[str, str], float]) -> str | Strong | None:
    """A value with its interval, in bold if it is the highest of its regime."""
    if row is None:
        return None
    text = f"{row['value']:.3f} [{_plain(row['low'])}, {_plain(row['high'])}]"
    return Strong(text) if row["value"] == best[row["regime"], row["metric"]] else text


def _plain(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.3f}"


def _difference_table(rows: Sequence[Row], *, with_p: bool) -> Table:
    cells: dict[tuple[str, str, str, str], dict[str, Row]] = {}
    for row in rows:
        key = (row["regime"], row["arm"], row["against"], row["metric"])
        cells.setdefault(key, {})[row["resampling"]] = row
    table: list[list[object]] = []
    for (regime, arm, against, metric), found in cells.items():
        first = found[RESAMPLINGS[0]]
        texts: list[object] = [
            regime,
            arm,
            against,
            metric_title(metric),
            signed_text(first["difference"], 3),
        ]
        texts += [_span(found[kind]).strip() or None for kind in RESAMPLINGS]
        texts += [first["p"], first["p_holm"]] if with_p else []
        table.append(texts)
    columns = ["regime", "arm", "against", "metric", "difference", *(TITLES[kind] for kind in RESAMPLINGS)]
    return Table(
        columns=[*columns, "p", "p (Holm)"] if with_p else columns,
        rows=table,
        caption="Differences with 95 % intervals; p (Holm) is adjusted for the number of primary comparisons",
    )


def _trial_sections(choices: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    if not choices:
        return
    rows: list[list[object]] = []
    for choice in choices:
        for number, trial in enumerate(choice["trials"], start=1):
            settings = {**trial["align"], **trial["train"]}
            name = ", ".join(f"{key} {value}" for key, value in settings.items()) or "as set"
            mean = f"{trial['mean']:.4f}"
            rows.append([choice["regime"], choice["arm"], name, Strong(mean) if number == choice["chosen"] else mean])
    trials = choices[0]["trials"]
    about = (
        f"Every arm had {counted(len(trials), 'trial')}, compared by {metric_title(choices[0]['metric'])} on the "
        f"development questions, mean over {counted(len(trials[0]['seeds']), 'seed')}. The chosen one is in bold."
    )
    table = Table(columns=["regime", "arm", "settings", "mean"], rows=rows)
    yield Section(title="Trials", text=[about], tables=[table], folded=True)


def _warnings(results: Mapping[str, Any]) -> Iterator[Section]:
    if results["warnings"]:
        yield Section(title="Warnings", text=results["warnings"])


def _facts(out: Path, results: Mapping[str, Any]) -> dict[str, object]:
    return {
        "baseline": results["baseline"],
        "seeds": ", ".join(map(str, results["seeds"])),
        "units of work": results["units"],
        "hours of work": results["unit_hours"],
        "test questions read": results["test_read_at"] or "no",
        "specification": results["spec_sha256"],
        "data-use class": results["data_use"],
        "write again": f"medalign report make {as_typed(out)}",
    }

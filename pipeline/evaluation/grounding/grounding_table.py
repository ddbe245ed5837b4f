"""A grounding run on the terminal."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ....plain_text import shown, signed_text
from ...row_output import Rows
from ...terminal import print_json, print_line, print_table, show_page
from ..statistics import Difference
from .ground import GROUNDING_FILE, GroundingReport
from .layer_statistics import ALL_LAYERS, LayerFinding
from .measures import MEASURES


def show_grounding(report: GroundingReport, page: Mapping[str, str | None] | None = None, *, as_json: bool) -> None:
    """Print the summary as one JSON object, or measures by layer; then where its page is, with the key `report`."""
    if as_json:
        print_json({**report.summary(), **(page or {})})
        return
    print_table(_values(report))
    if report.against is not None:
        print_table(_changes(report, report.against))
    left_out = "; ".join(f"{count} {reason}" for reason, count in report.left_out.items())
    if left_out:
        print_line(f"Questions not measured: {left_out}.")
    print_line(
        "Brackets: 95 % intervals over images. (other): the same regions with the attention to other images, over the "
        "questions whose regions another image has; *, and differences, compare the same questions. *: "
        f"significant difference. The results per question and layer are in {report.out / GROUNDING_FILE}"
    )
    show_page(page or {})


def grounding_rows(report: GroundingReport) -> Rows:
    """One row per layer and measure: its value with interval, chance, the value with other images, and changes."""
    return Rows(
        (
            *("layer", "aligned", "measure", "value", "low", "high", "chance", "other"),
            *(f"{name}{end}" for name in ("beyond_other", "change", "change_beyond") for end in ("", "_low", "_high")),
        ),
        [_row(report, finding) for finding in report.findings.layers],
    )


def _row(report: GroundingReport, finding: LayerFinding) -> tuple[Any, ...]:
    interval = finding.interval
    return (
        finding.layer,
        finding.layer in report.aligned_layers,
        finding.measure,
        finding.value,
        None if interval is None else interval.low,
        None if interval is None else interval.high,
        report.findings.chance[finding.measure],
        finding.other,
        *_parts(finding.beyond_other),
        *_parts(finding.change),
        *_parts(finding.change_beyond),
    )


def _parts(difference: Difference | None) -> tuple[float | None, ...]:
    return (None,) * 3 if difference is None else (difference.mean, difference.low, difference.high)


def _values(report: GroundingReport) -> Table:
    findings = report.findings
    title = f"attention on annotated regions: {report.questions} questions about {findings.images} images"
    table = _by_layer(title, [f"{measure.title} (other)" for measure in MEASURES], report, _cell)
    table.add_row("by chance", *(f"{_number(findings.chance[measure.name])} " for measure in MEASURES))
    return table


def _changes(report: GroundingReport, against: Path) -> Table:
    titles = [f"{measure.title} (minus other)" for measure in MEASURES]
    return _by_layer(f"change from {against}", titles, report, _change)


def _by_layer(
    title: str, columns: Sequence[str], report: GroundingReport, cell: Callable[[LayerFinding], str]
) -> Table:
    table = Table(title=shown(title), title_justify="left")
    table.add_column("layer", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for layer in dict.fromkeys(finding.layer for finding in report.findings.layers):
        aligned = " (aligned)" if layer in report.aligned_layers else ""
        cells = [cell(report.findings.at(layer, measure.name)) for measure in MEASURES]
        table.add_row(f"{layer}{aligned}", *cells, end_section=layer == ALL_LAYERS)
    return table


def _cell(finding: LayerFinding) -> str:
    span = "" if finding.interval is None else f" [{_number(finding.interval.low)}, {_number(finding.interval.high)}]"
    return f"{_number(finding.value)}{span} ({_number(finding.other)}){_star(finding.beyond_other)}"


def _change(finding: LayerFinding) -> str:
    """The change with its interval, then that of the value minus `other`; stars if the interval excludes 0."""
    if finding.change is None:
        return "-"
    span = f"[{signed_text(finding.change.low, 3)}, {signed_text(finding.change.high, 3)}]"
    beyond = (
        "-"
        if finding.change_beyond is None
        else f"{signed_text(finding.change_beyond.mean, 3)}{_star(finding.change_beyond)}"
    )
    return f"{signed_text(finding.change.mean, 3)} {span}{_star(finding.change)} ({beyond})"


def _star(difference: Difference | None) -> str:
    return "*" if difference is not None and difference.beyond_noise else " "


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".replace("0.", ".", 1)

"""A grounding run on the terminal."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..statistics import Difference
from ..terminal import print_json
from .findings import ALL_LAYERS, LayerFinding
from .measures import MEASURES
from .run import GROUNDING_FILE, GroundingReport


def show_grounding(report: GroundingReport, *, as_json: bool) -> None:
    """Print the summary as one JSON object, or measures by layer."""
    if as_json:
        print_json(report.summary())
        return
    console = Console()
    console.print(_values(report))
    if report.against is not None:
        console.print(_changes(report, report.against))
    told = "; ".join(f"{count} {reason}" for reason, count in report.left_out.items())
    if told:
        console.print(f"Questions not measured: {told}.", highlight=False)
    console.print(
        "Brackets: 95 % over images. (other): the same regions under attention to other images; a star where a "
        f"difference is beyond noise. One row a question and layer is in {report.out / GROUNDING_FILE}.",
        highlight=False,
    )


def _values(report: GroundingReport) -> Table:
    findings = report.findings
    title = f"attention on annotated regions: {report.questions} questions about {findings.images} images"
    table = _by_layer(title, [f"{measure.title} (other)" for measure in MEASURES], report, _cell)
    table.add_row("by chance", *(f"{_number(findings.chance[measure.name])} " for measure in MEASURES))
    return table


def _changes(report: GroundingReport, against: Path) -> Table:
    titles = [measure.title for measure in MEASURES]
    return _by_layer(f"change from {against}", titles, report, lambda finding: _change(finding.change))


def _by_layer(
    title: str, columns: Sequence[str], report: GroundingReport, cell: Callable[[LayerFinding], str]
) -> Table:
    table = Table(title=title, title_justify="left")
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
    star = "*" if finding.beyond_other is not None and finding.beyond_other.beyond_noise else " "
    return f"{_number(finding.value)}{span} ({_number(finding.other)}){star}"


def _change(change: Difference | None) -> str:
    """Mean and 95 % interval; a star where the interval leaves out 0."""
    if change is None:
        return "-"
    return f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]{'*' if change.beyond_noise else ' '}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".replace("0.", ".", 1)

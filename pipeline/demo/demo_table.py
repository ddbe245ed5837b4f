"""The demo's table: three arms side by side, differences with intervals, and the summary."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from ...atomic import write_whole
from ...plain_text import signed_text
from ...student.file_errors import read_object
from ..evaluation.statistics import Difference
from ..reports.studies.primary_findings import finding_text
from ..terminal import print_line, print_table
from .demo import STUDY_FILE, DemoReport
from .demo_results import MEASURES, SIMILARITY


def show_demo(report: DemoReport, page: Path | None, *, as_json: bool) -> None:
    """Write demo.json beside the results and print it, or print the table; `page` is the report, if there is one."""
    study = read_object(STUDY_FILE)
    values = _as_values(report) | {"study": study, "report": None if page is None else str(page)}
    text = json.dumps(values, indent=2)
    write_whole(report.out / "demo.json", text + "\n")
    if as_json:
        print(text)
        return
    print_table(_table(report))
    print_line(report.findings.sentence)
    print_line(
        f"Over {len(study['seeds'])} training seeds instead of one, mean score of all questions "
        f"(docs/phantom-study.md): {finding_text(study)}"
    )
    print_line(f"All results are in {report.out}; the numbers are in {report.out / 'demo.json'}")
    if page is not None:
        print_line(f"Report, to open in a browser: {page}")


def _as_values(report: DemoReport) -> dict[str, object]:
    return {
        "out": str(report.out),
        "plan": asdict(report.plan),
        "arms": {
            title: {name: arm.mean(name) for name in (*(measure.name for measure in MEASURES), *SIMILARITY)}
            | {"reference": arm.reference}
            for title, arm in report.arms.items()
        },
        "baseline": report.findings.baseline,
        "differences": {
            title: {name: asdict(gap) for name, gap in gaps.items()}
            for title, gaps in report.findings.differences.items()
        },
        "sentence": report.findings.sentence,
    }


def _table(report: DemoReport) -> Table:
    questions = len(next(iter(report.arms.values())).images)
    table = Table(title=f"{questions} questions about held-out phantoms", title_justify="left")
    findings = report.findings
    table.caption = "*: significant (95 %)"
    table.caption_justify = "left"
    table.add_column("")
    for title in (*report.arms, *(f"{title} - {findings.baseline}" for title in findings.differences)):
        table.add_column(title, justify="right")
    for measure in MEASURES:
        arms = report.arms.values()
        known = next(iter(arms)).reference.get(measure.name, {})
        told = ", ".join(f"{name} {value:.3f}" for name, value in known.items())
        name = f"{measure.title} ({told})" if told else measure.title
        table.add_row(
            name,
            *(f"{arm.mean(measure.name):.3f}" for arm in arms),
            *(_gap(gaps[measure.name]) for gaps in findings.differences.values()),
        )
    return table


def _gap(gap: Difference) -> str:
    """Mean and 95 % interval; a star if it is significant."""
    star = "*" if gap.beyond_noise else " "
    return f"{signed_text(gap.mean, 3)} [{signed_text(gap.low, 3)}, {signed_text(gap.high, 3)}]{star}"

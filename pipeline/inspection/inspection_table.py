"""The result of `medalign student inspect` on the terminal."""

from ..reports.page import REPORT_FILE
from ..terminal import print_json, print_line
from .inspect_students import InspectionReport


def show_inspection(report: InspectionReport, *, as_json: bool) -> None:
    """Print the summary as one JSON object, or the verdicts and findings as sentences."""
    if as_json:
        print_json(report.summary())
        return
    for arm, verdicts in report.verdicts.items():
        for sentence in verdicts.values():
            print_line(f"{arm}: {sentence}")
    for sentence in report.findings:
        print_line(sentence)
    for warning in report.warnings:
        print_line(f"warning: {warning}")
    print_line(f"The report is {report.out / REPORT_FILE}")

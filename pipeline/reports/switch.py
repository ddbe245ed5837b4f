"""Whether commands whose main result is something else write a report."""

import os
from typing import Final

NO_REPORT: Final = "MEDALIGN_NO_REPORT"
"""Environment variable: any value but an empty one or 0 turns such reports off, for jobs that nobody will look at."""


def reports_are_on() -> bool:
    """Whether `train`, `align`, `evaluate`, `compare`, `ground` and `demo` write report.html."""
    return os.environ.get(NO_REPORT, "") in ("", "0")


def no_report_note(command: str) -> str:
    """What a command prints instead of the path of its report; `command` writes it later."""
    return f"no report was written, because {NO_REPORT} is set; `{command}` writes it"

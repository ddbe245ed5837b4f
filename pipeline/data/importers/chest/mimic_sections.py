"""Findings of a MIMIC-CXR report, following the maintainers' section parser (MIT-LCP/mimic-cxr, txt/).

A heading is a line that starts with a space, capitals, a colon and a space. Many reports have, instead of the heading
FINDINGS, one with the type of examination (`PORTABLE AP CHEST RADIOGRAPH:`), which counts as FINDINGS. The last
non-empty findings are used.
"""

import re
from collections.abc import Iterator

_HEADING = re.compile(r"\n ([A-Z ()/,-]+):\s")
_SECTIONS = ("impression", "findings", "history", "comparison", "addendum")
"""The section of headings that contain one of these words; the first match counts."""
_MISSPELT = frozenset({"finding", "findins", "findindgs", "findgings", "findngs", "findnings", "finidngs"})
_VIEWS = (
    *("chest", "portable", "ribs", "bone window", "two views", "one view", "pa and lat", "lateral and pa"),
    *("ap and lateral", "lateral and ap", "frontal and", "frontal view", "frontal upright", "frontal semi-upright"),
    *("pa view", "ap view", "lateral view"),
)
"""Words in headings with the type of examination; the text below is findings."""


def findings_of(report: str) -> str | None:
    """The findings in one line; `None` if the report has none."""
    written = [body for heading, body in _sections(report) if _is_findings(heading) and body.strip()]
    return " ".join(written[-1].split()) if written else None


def _sections(report: str) -> Iterator[tuple[str, str]]:
    """Heading and text of every section. The next heading cannot be on the same line."""
    found = _HEADING.search(report)
    while found is not None:
        line_end = report.find("\n", found.end())
        following = _HEADING.search(report, line_end if line_end >= 0 else found.end())
        yield found[1], report[found.end() : following.start() if following else len(report)]
        found = following


def _is_findings(heading: str) -> bool:
    name = heading.lower().strip()
    if name in _MISSPELT:
        return True
    section = next((section for section in _SECTIONS if section in name), None)
    return section == "findings" or (section is None and any(view in name for view in _VIEWS))

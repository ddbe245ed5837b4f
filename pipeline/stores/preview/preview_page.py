"""The report of a preview."""

from pathlib import Path

from ....progress import Progress


def write_preview(preview: object, out: Path, patch: int | None, progress: Progress) -> None:
    """Write the report."""

"""The folder of a report with its figures: a new one, whose name is not that of a picture or a page."""

from pathlib import Path
from typing import Final

from ...errors import SettingsError
from ...student.folders.model_folder import check_new_folder

_FILES: Final = (".png", ".jpg", ".jpeg", ".svg", ".pdf", ".html", ".htm", ".json")


def check_report_folder(out: Path) -> None:
    """Check that a report can be written to the new folder `out`, before any slow step.

    Raises:
        SettingsError: The name is that of a single file.
        InputError: It is in use.
    """
    if out.suffix.lower() in _FILES:
        raise SettingsError(
            f"--out {out} has the name of a file, but several files are written, to a new folder: pass the name of a "
            f"folder, such as {out.with_suffix('')}"
        )
    check_new_folder(out)

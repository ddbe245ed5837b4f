"""Checks of output paths."""

from pathlib import Path

from ...errors import SettingsError
from ...teacher_cache.store.file_names import GROUP_FILE, LEDGER_FOLDER, MANIFEST_FILE


def require_outside_stores(path: Path, argument: str) -> None:
    """Check that an output path is not inside a local teacher store, finished or not; `path` itself may be one.

    Raises:
        SettingsError: It is, so the store would contain files that it does not list.
    """
    for folder in path.resolve().parents:
        if (folder / GROUP_FILE).is_file() and any((folder / name).exists() for name in (MANIFEST_FILE, LEDGER_FOLDER)):
            raise SettingsError(
                f"{argument}: {path} is inside the teacher store {folder}, which may contain only its own files: pass "
                "a path outside of it"
            )

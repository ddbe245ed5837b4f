"""Where results may go."""

from pathlib import Path

from ...errors import SettingsError
from ...teacher_cache.store.file_names import GROUP_FILE, LEDGER_FOLDER, MANIFEST_FILE


def require_outside_stores(path: Path, argument: str) -> None:
    """Check that results do not go inside a local teacher store, finished or not; `path` itself may be one.

    Raises:
        SettingsError: they would, and the store would hold files that it does not list.
    """
    for folder in path.resolve().parents:
        if (folder / GROUP_FILE).is_file() and any((folder / name).exists() for name in (MANIFEST_FILE, LEDGER_FOLDER)):
            raise SettingsError(
                f"{argument}: {path} is inside the teacher store {folder}, where only its own files may be: give a "
                "place beside it"
            )

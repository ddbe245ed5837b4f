"""Checks of output paths."""

from pathlib import Path

from ...atomic import check_replaceable
from ...errors import InputError, SettingsError
from ...teacher_cache.store.file_names import GROUP_FILE, LEDGER_FOLDER, MANIFEST_FILE


def check_output(path: Path, argument: str) -> None:
    """Check that an output path is neither a special file nor inside a teacher store or below a file.

    Raises:
        InputError: `path` is a pipe, a socket or a device, or a link to one, or it is below a file.
        SettingsError: `path` is inside a store.
    """
    check_replaceable(path)
    _require_folder_above(path, argument)
    require_outside_stores(path, argument)


def _require_folder_above(path: Path, argument: str) -> None:
    for folder in path.absolute().parents:
        if folder.is_dir():
            return
        if folder.exists() or folder.is_symlink():
            raise InputError(f"{argument}: {path} cannot be created, because {folder} is no folder: pass another path")


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

"""Checks of output paths."""

import os
from contextlib import suppress
from pathlib import Path

from ...atomic import check_replaceable
from ...errors import InputError, SettingsError
from ...teacher_cache.store.file_names import GROUP_FILE, LEDGER_FOLDER, MANIFEST_FILE


def check_output(path: Path, argument: str) -> None:
    """Check that an output path is neither a special file nor inside a teacher store, and that it can be created.

    Raises:
        InputError: `path` is a pipe, a socket or a device, or a link to one; or it is below a file, or in a folder
            that this user cannot write to.
        SettingsError: `path` is inside a store.
    """
    check_replaceable(path)
    _require_folder_above(path, argument)
    require_outside_stores(path, argument)


def _require_folder_above(path: Path, argument: str) -> None:
    with suppress(OSError):  # not permitted, or too long a name: the caller's next step reports why
        folder = next((above for above in path.absolute().parents if above.exists() or above.is_symlink()), path)
        if not folder.is_dir():
            reason = f"{folder} is no folder"
        elif not os.access(folder, os.W_OK) and not path.exists():
            reason = f"you may not write to {folder}"
        else:
            return
        raise InputError(f"{argument}: {path} cannot be created, because {reason}: pass another path")


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

"""An image folder with metadata.csv, as `datasets` reads it: its questions if there are any, else only its images."""

from pathlib import Path

from .....errors import InputError
from .....plain_text import as_typed
from .....progress import Progress
from ...manifest import Manifest
from ..common import ImportOptions
from ..image_folders.embedded_images import column_names
from ..image_folders.folder import import_folder
from .columns import pick_columns
from .table import import_table, read_any
from .table_files import table_files


def import_image_folder(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read the questions of metadata.csv; if it has none, note that, and list only the images.

    Raises:
        InputError: The metadata cannot be read, or images are missing.
    """
    first = table_files(src)[0].path
    if first.suffix == ".parquet":
        names = column_names(first)
    else:
        rows = read_any(first, options, progress)
        names = list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row))
    try:
        pick_columns(first, names, options.columns)
    except InputError:
        if options.columns:
            raise
        progress.note(
            f"{first} has no columns for a question, an answer and an image, and is skipped; its columns: "
            f"{', '.join(names)}. `medalign data import folder {as_typed(src)} --column question=NAME` reads it"
        )
        return import_folder(src, options, progress)
    return import_table(src, options, progress)

"""List, print and copy the configurations and examples installed with medalign."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ..atomic import write_whole
from ..errors import InputError, SettingsError
from ..plain_text import as_typed
from ..suggestions import suggestion

if TYPE_CHECKING:
    from .row_output import Rows

Kind = Literal["training", "alignment", "comparison", "study", "example"]

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_USE: Final[dict[Kind, str]] = {
    "training": "medalign student train {file} --dry-run",
    "alignment": "medalign student align {file} --dry-run",
    "comparison": "medalign student compare {file} --out RESULTS",
    "study": "medalign study {file} --dry-run",
    "example": "see its first lines for how to run it",
}
"""What to do with a copied file."""

_KINDS: Final[dict[str, Kind]] = {
    ".": "training",
    "alignment": "alignment",
    "comparisons": "comparison",
    "study": "study",
}
"""By folder in `configs/`."""


@dataclass(frozen=True)
class ShippedFile:
    """One file below `configs/` or `examples/`."""

    name: str
    kind: Kind
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def description(self) -> str:
        """The first sentence of the docstring of a Python file, else of the comment at the top."""
        head = self.text.removeprefix("#!/usr/bin/env bash\n")
        lines = head.split('"""')[1].splitlines() if head.startswith('"""') else head.splitlines()
        sentence = " ".join(line.removeprefix("# ") for line in lines[:2])
        return re.split(r"(?<=[.)])\s|: (?:bash|sbatch|python) ", sentence)[0].rstrip(".")


@dataclass(frozen=True)
class CopiedFile:
    """A shipped file and its copy."""

    file: ShippedFile
    copy: Path

    def summary(self) -> dict[str, object]:
        return {
            "name": self.file.name,
            "kind": self.file.kind,
            "copy": self.copy,
            "next": _USE[self.file.kind].format(file=as_typed(self.copy)),
        }


def shipped_files() -> dict[str, ShippedFile]:
    """All files by name: `vqa-rad-smollm2`, `comparisons/phantoms`, `own_decoding.py`."""
    return {file.name: file for file in _files()}


def _files() -> Iterator[ShippedFile]:
    configs, examples = _PACKAGE / "configs", _PACKAGE / "examples"
    for path in sorted(configs.rglob("*.yaml"), key=lambda path: (len(path.parts), path.stem)):
        kind = _KINDS[path.parent.relative_to(configs).as_posix()]
        yield ShippedFile(path.relative_to(configs).with_suffix("").as_posix(), kind, path)
    for path in sorted(path for path in examples.glob("*") if path.suffix in (".py", ".sh")):
        yield ShippedFile(path.name, "example", path)


def find_shipped(name: str) -> ShippedFile:
    """The file of this name; the documentation's `configs/NAME.yaml` and `examples/NAME` work too.

    Raises:
        SettingsError: There is none.
    """
    known = shipped_files()
    short = name.removeprefix("./").removeprefix("configs/").removeprefix("examples/").removesuffix(".yaml")
    for candidate in (name, short):
        if candidate in known:
            return known[candidate]
    raise SettingsError(
        f"unknown configuration or example {name!r}{suggestion(short, known)}; `medalign config list` shows all"
    )


def copy_shipped(name: str, out: Path | None, *, force: bool = False) -> CopiedFile:
    """Copy one file to `out`: a new file, or an existing folder; default: the same name in the working directory.

    Raises:
        SettingsError: There is no file of this name.
        InputError: The copy would overwrite a file and `force` is not set, or it cannot be written.
    """
    file = find_shipped(name)
    copy = Path(file.path.name) if out is None else out / file.path.name if out.is_dir() else out
    if copy.is_dir():
        raise InputError(f"{copy} is a folder: pass another --out")
    if os.path.lexists(copy) and not force:  # a link to a missing file exists too
        raise InputError(f"{copy} exists: pass another --out, or --force to overwrite it with medalign's {file.name}")
    if not copy.parent.is_dir():
        raise InputError(f"{copy.parent} is not a folder: create it first, or pass another --out")
    write_whole(copy, file.text)
    return CopiedFile(file, copy)


def shipped_rows() -> "Rows":
    """Every file with its kind and description."""
    from .row_output import Rows

    rows = [(file.name, file.kind, file.description) for file in shipped_files().values()]
    return Rows(("name", "kind", "description"), rows)


def show_shipped_files(*, as_json: bool) -> None:
    """Print every file with its kind and description."""
    from .terminal import show_rows

    files = shipped_rows()
    show_rows("files", files.columns, files.rows, as_json=as_json)


def show_shipped(name: str, *, as_json: bool) -> None:
    """Print one file unchanged."""
    from .terminal import print_json

    file = find_shipped(name)
    if as_json:
        print_json({"name": file.name, "kind": file.kind, "path": file.path, "text": file.text})
    else:
        print(file.text, end="")

"""Layouts: the forms of a data set on disk, each recognized by files that only it has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from ....errors import InputError
from ....progress import Progress
from ....suggestions import spelling
from ..manifest import Manifest
from .common import ImportOptions
from .image_folders.image_files import is_system_name

Run = Callable[[Path, ImportOptions, Progress], Manifest]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One layout of a data set."""

    name: str
    markers: tuple[str, ...]
    """Patterns below SRC, any of which identifies this layout; if empty, it is the fallback."""
    run: Run
    files: tuple[str, ...] = ()
    """Patterns for SRC itself if it is a file, in addition to the last parts of the markers."""
    uses: tuple[str, ...] = ("images",)
    """Which of the options `images`, `seed`, `language` and `column` apply to this layout."""
    published_split: bool = True
    """Whether its questions have a split; if not, a random one is possible (`--split train=0.8,test=0.2`)."""

    def marker(self, src: Path) -> str | None:
        """The file below SRC, or SRC itself, that identifies this layout."""
        if src.is_file():
            patterns = (*self.files, *(PurePath(marker).name for marker in self.markers))
            return src.name if any(PurePath(src.name).match(pattern) for pattern in patterns) else None
        found = (path for marker in self.markers for path in sorted(src.glob(marker)))
        return next((path.relative_to(src).as_posix() for path in found if not is_system_name(path.name)), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Importer:
    """A data set that can be imported, in any of its layouts."""

    name: str
    layouts: tuple[Layout, ...]

    @property
    def reads(self) -> str:
        """What SRC must be, in one line."""
        return "; ".join(_described(layout) for layout in self.layouts)


def find_layout(importer: Importer, src: Path) -> tuple[Layout, str]:
    """The layout of SRC, and the file that identifies it.

    Raises:
        InputError: SRC does not exist, its layout is unknown, or it has two layouts.
    """
    if not src.exists():
        raise InputError(f"{src} does not exist{spelling(src)}")
    found = [(layout, marker) for layout in importer.layouts if (marker := layout.marker(src)) is not None]
    if len({layout.run for layout, _ in found}) > 1:
        both = "\n".join(f"  {layout.name}: {marker}" for layout, marker in found)
        raise InputError(
            f"{src} has {importer.name} in several layouts:\n{both}\n"
            "Pass one of these files, or a folder with one layout"
        )
    if found:
        return found[0]
    rest = [layout for layout in importer.layouts if not layout.markers]
    if rest:
        return rest[0], ""
    raise InputError(f"{src} has none of the layouts of {importer.name}:\n{listed_layouts(importer.layouts)}")


def listed_layouts(layouts: Sequence[Layout]) -> str:
    return "\n".join(f"  {_described(layout)}" for layout in layouts)


def _described(layout: Layout) -> str:
    return f"{layout.name} ({' or '.join(layout.markers)})" if layout.markers else layout.name

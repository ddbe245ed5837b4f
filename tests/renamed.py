"""What happens to image folders: names move on by one, files are re-saved, edited, lost."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def rename_by_one(paths: Sequence[Path]) -> None:
    """Give every file the next one's name, the last one's file the first name."""
    contents = [path.read_bytes() for path in paths]
    for path, data in zip(paths, [contents[-1], *contents[:-1]], strict=True):
        path.write_bytes(data)


def resave(path: Path) -> None:
    """Write the same pixels in other bytes."""
    before = path.read_bytes()
    with Image.open(path) as image:
        image.load()
        image.save(path, format="PNG", compress_level=0)
    assert path.read_bytes() != before


def brighten(path: Path) -> None:
    """Change one pixel."""
    with Image.open(path) as image:
        changed = image.copy()
    corner = changed.getpixel((0, 0))
    value = tuple(255 - level for level in corner) if isinstance(corner, tuple) else 255 - corner
    changed.putpixel((0, 0), value)
    changed.save(path)

"""SLAKE's annotated regions: mask.png and detection.json beside every image, and label names in mask.txt.

A pixel of mask.png is the number of an organ or disease (equal in all channels), or 0 outside; mask.txt has a line
`number:name` for each. detection.json is a list of `{name: [x, y, width, height]}` in pixels of the image.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from .....errors import InputError
from .....plain_text import counted
from .....progress import Progress
from ...label_images import read_label_image
from ...regions import Region
from ..common import FoundImages, ImageColumns, shortened
from ..records import read_json, text

LABELS_FILE = "mask.txt"
MASK_NAME = "mask"
BOXES_FILE = "detection.json"


@dataclass(slots=True)
class Oddities:
    """Irregularities by kind, with the files of each."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, place: str) -> None:
        self.found[kind].append(place)

    def tell(self, progress: Progress) -> None:
        for kind, places in self.found.items():
            progress.note(f"{counted(len(places), 'image has', 'images have')} {kind}; {shortened(places)}")


def read_regions(src: Path, root: Path, found: FoundImages, progress: Progress) -> dict[str, tuple[Region, ...]]:
    """The regions of every image, by its name; missing or irregular annotations are noted and skipped.

    A name with a mask and boxes becomes one region per box, all with that mask, which takes precedence.

    Raises:
        InputError: mask.txt, or a detection.json, is malformed.
    """
    labels = _read_labels(src / LABELS_FILE, progress)
    oddities = Oddities()
    progress.start("reading masks and boxes", len(found.columns))
    regions = {}
    for name, columns in found.columns.items():
        place = columns.get("image") or name
        masks = _masks(root, place, columns, labels, oddities)
        boxes = _boxes(root, place, oddities)
        regions[name] = tuple(_joined(masks, boxes))
        progress.advance()
    oddities.tell(progress)
    return regions


def _joined(masks: list[Region], boxes: list[Region]) -> list[Region]:
    """Masks with the boxes of the same name, then boxes without a mask."""
    named = defaultdict(list)
    for box in boxes:
        named[_folded(box.name)].append(box)
    regions = []
    for mask in masks:
        corners = [box.box for box in named.pop(_folded(mask.name), [])] or [None]
        regions += [Region(name=mask.name, mask=mask.mask, value=mask.value, box=box) for box in corners]
    return regions + [box for same in named.values() for box in same]


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _read_labels(path: Path, progress: Progress) -> dict[int, str]:
    """Number -> name.

    Raises:
        InputError: A line is not `number:name`.
    """
    if not path.is_file():
        progress.note(f"{path} does not exist: masks have no names and are skipped, boxes are kept")
        return {}
    labels: dict[int, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        key, _, name = line.partition(":")
        if line.strip() and not (key.strip().isdecimal() and name.strip()):
            raise InputError(f"{path}, line {number}: {line.strip()!r} is not `number:name`")
        if line.strip() and labels.get(int(key), name.strip()) != name.strip():
            raise InputError(f"{path}, line {number}: {key.strip()} is {name.strip()}, but {labels[int(key)]} above")
        if line.strip():
            labels[int(key)] = name.strip()
    return labels


def _masks(root: Path, name: str, columns: ImageColumns, labels: Mapping[int, str], oddities: Oddities) -> list[Region]:
    """One region per named label in an image's mask."""
    path = _beside(root, name, MASK_NAME, ".png")
    if path is None:
        oddities.add("no mask.png", name)
        return []
    try:
        numbers = read_label_image(path, columns.get("width") or 0, columns.get("height") or 0)
    except InputError as error:
        oddities.add("an invalid mask, which is skipped", str(error))
        return []
    present = [int(value) for value in np.unique(numbers) if value != 0]
    unnamed = [value for value in present if value not in labels]
    if unnamed and labels:
        oddities.add("mask labels without a name in mask.txt, which are skipped", f"{name}: {unnamed[:5]}")
    mask = path.relative_to(root).as_posix()
    return [Region(name=labels[value], mask=mask, value=value) for value in present if value in labels]


def _boxes(root: Path, name: str, oddities: Oddities) -> list[Region]:
    path = _beside(root, name, "detection", ".json")
    if path is None:
        oddities.add(f"no {BOXES_FILE}", name)
        return []
    entries = read_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path} is not a list of {{name: [x, y, width, height]}}")
    boxes = []
    for label, corners in (pair for entry in entries for pair in entry.items()):
        numbers = corners if isinstance(corners, list) else []
        if len(numbers) != 4 or not all(isinstance(number, int | float) for number in numbers) or text(label) is None:
            raise InputError(f"{path}: the box of {label!r} is {corners!r}, not [x, y, width, height]")
        if min(numbers[2:]) > 0:
            x, y, width, height = map(float, numbers)
            boxes.append(Region(name=label.strip(), box=(x, y, width, height)))
        else:
            oddities.add("boxes without an area, which are skipped", f"{name}: {label}")
    return boxes


def _beside(root: Path, name: str, stem: str, suffix: str) -> Path | None:
    """`mask.png` beside an image, or `mask_xmlab0.png` in one copy of the release."""
    folder = root / PurePosixPath(name).parent
    candidates = (folder / f"{stem}{suffix}", folder / f"{stem}_{folder.name}{suffix}")
    return next((path for path in candidates if path.is_file()), None)

"""Check that a folder's image processor scales and normalizes images as medalign does."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError

_REMEDY = "Set it to the value that the model was trained with, or copy the folder's files again"


def check_processor(path: Path, settings: Mapping[str, Any], side: int) -> None:
    """Check that a processor divides by 255, normalizes, and outputs squares of the vision tower's `side`.

    Its resizing and cropping before that are not checked: medalign pads images to a square (docs/students.md).

    Raises:
        InputError: it does something else, which the model may have been trained with.
    """
    for name in ("do_rescale", "do_normalize"):
        if settings.get(name) is False:
            raise InputError(f"{path}: {name} is false, but medalign divides by 255 and normalizes. {_REMEDY}")
    factor = settings.get("rescale_factor")
    if factor is not None and not _is_one_of_255(factor):
        raise InputError(f"{path}: rescale_factor is {str(factor)[:80]}, but medalign divides by 255. {_REMEDY}")
    crops = settings.get("do_center_crop") is not False and settings.get("crop_size") is not None
    name = "crop_size" if crops else "size"
    size = _rectangle(settings.get(name), edges=crops or settings.get("do_center_crop") is False)
    if size is not None and size != (side, side):
        raise InputError(
            f"{path}: {name} is {size[0]} x {size[1]}, but the vision tower of config.json takes {side} x {side} "
            f"pixels. {_REMEDY}"
        )


def _is_one_of_255(factor: Any) -> bool:
    return isinstance(factor, int | float) and math.isclose(factor, 1 / 255, rel_tol=1e-3)


def _rectangle(size: Any, *, edges: bool) -> tuple[Any, Any] | None:
    """Width and height of the output; `None` if not given. With `edges`, a single edge means a square."""
    if isinstance(size, Mapping) and "height" in size and "width" in size:
        return size["width"], size["height"]
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else size
    return (edge, edge) if edges and isinstance(edge, int) else None

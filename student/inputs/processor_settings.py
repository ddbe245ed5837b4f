"""A folder's image processor, where it says how images become numbers: what it says must be what is done here."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError

_REMEDY = "Set it as the model was trained, or copy the folder's files again"


def check_processor(path: Path, settings: Mapping[str, Any], side: int) -> None:
    """Check that a processor divides by 255, normalizes, and ends with squares of the vision tower's `side`.

    How it resizes and crops on the way is not looked at: images are padded to a square here (docs/students.md).

    Raises:
        InputError: it does something else, which the model was perhaps trained with.
    """
    for name in ("do_rescale", "do_normalize"):
        if settings.get(name) is False:
            raise InputError(f"{path}: {name} is false, but images are divided by 255 and normalized here. {_REMEDY}")
    factor = settings.get("rescale_factor")
    if factor is not None and not _is_one_of_255(factor):
        raise InputError(f"{path}: rescale_factor is {str(factor)[:80]}, but images are divided by 255 here. {_REMEDY}")
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
    """Width and height of what comes out; `None` where it is not said. `edges`: one edge stands for a square."""
    if isinstance(size, Mapping) and "height" in size and "width" in size:
        return size["width"], size["height"]
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else size
    return (edge, edge) if edges and isinstance(edge, int) else None

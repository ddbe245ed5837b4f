"""Annotated regions of an image: a manifest's `regions` column (docs/manifests.md)."""

from dataclasses import dataclass
from typing import Any

import polars as pl

REGION_COLUMN = "regions"
REGIONS = pl.List(
    pl.Struct({"name": pl.String(), "mask": pl.String(), "value": pl.Int32(), "box": pl.List(pl.Float64())})
)
"""Type of the column; `[]` if an image has no annotated region."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """One annotated part of an image: a mask, a box, or both (then the mask takes precedence)."""

    name: str
    """Its name in the data set: `liver`, `lesion`, `Cardiomegaly`."""
    mask: str | None = None
    """Posix path relative to the manifest's root of a single-channel image of the image's size; non-zero is inside."""
    value: int | None = None
    """If the mask file has several labels: pixels with this value are inside."""
    box: tuple[float, float, float, float] | None = None
    """x, y, width, height in pixels of the upright image, from its top left."""

    def __post_init__(self) -> None:
        if self.box is not None:  # polars rejects a mix of int and float
            object.__setattr__(self, "box", tuple(map(float, self.box)))


def read_regions(cell: list[dict[str, Any]]) -> tuple[Region, ...]:
    """The regions of one row of the column."""
    return tuple(
        Region(name=item["name"], mask=item["mask"], value=item["value"], box=item["box"] and tuple(item["box"]))
        for item in cell
    )


def region_rules(unsafe_path: str) -> dict[str, pl.Expr]:
    """Rules that a row's regions must not break: message -> expression over the column."""

    def some(broken: pl.Expr) -> pl.Expr:
        return pl.col(REGION_COLUMN).list.eval(broken.fill_null(False)).list.any()

    mask, box = (pl.element().struct.field(name) for name in ("mask", "box"))
    size = (box.list.get(index, null_on_oob=True) for index in (2, 3))
    finite = box.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    return {
        "regions is null": pl.col(REGION_COLUMN).is_null(),
        "a region without a name": some(pl.element().struct.field("name").fill_null("") == ""),
        "a region with neither a mask nor a box": some(mask.is_null() & box.is_null()),
        "a region with a value but no mask": some(pl.element().struct.field("value").is_not_null() & mask.is_null()),
        "a region's mask is not a POSIX path inside the root": some(mask.str.contains(unsafe_path)),
        "a region's box is not x, y, width, height with a positive size": some(
            (box.list.len() != 4) | ~finite | pl.any_horizontal(*(side <= 0 for side in size))
        ),
        "regions without an image": (pl.col(REGION_COLUMN).list.len() > 0) & pl.col("image").is_null(),
    }

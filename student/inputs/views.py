"""Views of an image: where in the image each of its tokens lies.

A student turns an image into tokens, and a view is the grid that some of these tokens form over a part of the image. A
Llava has one view of each image, the padded square. Other students have several, for example the whole image and its
quarters, and tokens between them that belong to no place. So whatever draws over an image, or looks up a place in it,
takes rows, columns and boxes from here. Importing this module does not load torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ...choices import Geometry
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ...teacher_cache.geometry.square import place_on_square

Box = tuple[float, float, float, float]
"""x and y of the top left corner, width and height, in pixels of the upright image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A grid of tokens over a box in the image, row-major from the top left."""

    rows: int
    columns: int
    box: Box
    """It may reach beyond the image, where the student sees padding: x or y is negative then."""
    tokens: tuple[int, ...]
    """Index of each cell's token among the image's own tokens."""

    def __post_init__(self) -> None:
        if len(self.tokens) != self.rows * self.columns:
            raise ValueError(f"{len(self.tokens)} tokens do not form a grid of {self.rows}x{self.columns}")

    def cell(self, row: int, column: int) -> Box:
        """The box of one cell."""
        x, y, width, height = self.box
        side_x, side_y = width / self.columns, height / self.rows
        return x + column * side_x, y + row * side_y, side_x, side_y

    def cells(self) -> Iterator[tuple[int, Box]]:
        """Token and box of every cell, row by row."""
        for number, token in enumerate(self.tokens):
            yield token, self.cell(*divmod(number, self.columns))

    def on_grid(self, values: Sequence[float] | np.ndarray) -> Float[np.ndarray, "rows columns"]:
        """Arrange this view's part of one value for each of the image's tokens as the view's grid."""
        return np.asarray(values, np.float64)[list(self.tokens)].reshape(self.rows, self.columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLayout:
    """All views of one image."""

    views: tuple[View, ...]
    tokens: int
    """Number of the image's tokens, including those that belong to no view."""

    def __post_init__(self) -> None:
        for view in self.views:
            first, last = min(view.tokens), max(view.tokens)
            if first < 0 or last >= self.tokens:
                raise ValueError(
                    f"a view has tokens {first} to {last}, but the image has tokens 0 to {self.tokens - 1}"
                )

    def cells(self) -> Iterator[tuple[int, Box]]:
        """Token and box of every cell of every view."""
        for view in self.views:
            yield from view.cells()

    def border(self) -> list[int]:
        """The tokens in the first and last row and column of each view."""
        return [
            token
            for view in self.views
            for number, token in enumerate(view.tokens)
            if number // view.columns in (0, view.rows - 1) or number % view.columns in (0, view.columns - 1)
        ]

    def padding(self, width: int, height: int) -> list[int]:
        """The tokens that see nothing of an image of `width` x `height` pixels, only the padding around it."""
        return [token for token, box in self.cells() if inside(box, width, height) is None]


def square_layout(width: int, height: int, grid: PatchGrid, geometry: Geometry = "pad") -> ImageLayout:
    """The single view of a model with a square input, for an upright image of `width` x `height` pixels.

    `pad`: the square around the image, as students see it. `crop`: the square in its middle (up to a pixel of the
    model's input), as some stores' teachers see it.
    """
    if geometry == "pad":
        side, left, top = place_on_square(width, height)
        box = (float(-left), float(-top), float(side), float(side))
    else:
        short = min(width, height)
        box = ((width - short) / 2, (height - short) / 2, float(short), float(short))
    view = View(rows=grid.rows, columns=grid.columns, box=box, tokens=tuple(range(grid.patches)))
    return ImageLayout(views=(view,), tokens=grid.patches)


def inside(box: Box, width: int, height: int) -> Box | None:
    """The part of a box that lies in an image of `width` x `height` pixels; None if it is all padding."""
    x, y, box_width, box_height = box
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + box_width, float(width)), min(y + box_height, float(height))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None

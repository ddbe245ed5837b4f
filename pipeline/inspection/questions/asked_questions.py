"""The asked questions with the places of their image tokens and the regions that they are about.

Q questions, T image tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from ....choices import Geometry
from ....student.inputs.image_processing import StudentImages
from ....student.inputs.views import ImageLayout, square_layout
from ....student.metrics.region_attention import token_coverage
from ....teacher_cache.geometry.patch_grid import PatchGrid
from ....teacher_cache.images import read_expected_image
from ...data.annotations.region_masks import region_pixels
from ...data.annotations.region_questions import regions_named
from ...data.manifest import Manifest
from ...data.mask_hashes import mask_hashes
from ...data.regions import Region, read_regions


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TeacherMaps:
    """The teacher's attention on images of the manifest, from a store."""

    E_a: Mapping[str, Float[Tensor, " patches"]]
    """By image hash; not normalized."""
    grid: PatchGrid
    geometry: Geometry
    """How the teacher saw the images."""

    def layout(self, width: int, height: int) -> ImageLayout:
        """The places of the patches in an upright image of `width` x `height` pixels."""
        return square_layout(width, height, self.grid, self.geometry)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class AskedQuestions:
    """Questions about one image each, in the order of `manifest`."""

    manifest: Manifest
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each question's upright image."""
    layouts: tuple[ImageLayout, ...]
    regions: tuple[tuple[Region, ...], ...]
    """The annotated regions that each question is about; empty if it names none of its image."""

    @property
    def frame(self) -> pl.DataFrame:
        return self.manifest.frame

    @property
    def with_regions(self) -> list[int]:
        """Indices of the questions that are about an annotated region."""
        return [index for index, regions in enumerate(self.regions) if regions]

    def mask(self, index: int, region: Region) -> Bool[Tensor, "height width"]:
        """The pixels of the upright image that a region covers at least half.

        Raises:
            InputError: Its mask is missing or does not fit.
        """
        return self._inside(index, (region,)) >= 0.5

    def coverage(self, index: int, layout: ImageLayout | None = None) -> Float[Tensor, " tokens"]:
        """Fraction of each image token's cell that the question's regions cover; `layout` replaces the student's.

        Raises:
            InputError: A mask is missing or does not fit.
        """
        return token_coverage(self._inside(index, self.regions[index]), layout or self.layouts[index])

    def border(self) -> Bool[Tensor, "questions tokens"]:
        """Which tokens are on the border of a view."""
        found = torch.zeros(len(self.layouts), self.layouts[0].tokens if self.layouts else 0, dtype=torch.bool)
        for index, layout in enumerate(self.layouts):
            found[index, layout.border()] = True
        return found

    def padding(self) -> Bool[Tensor, "questions tokens"]:
        """Which tokens see nothing of the image, only the padding around it."""
        found = torch.zeros(len(self.layouts), self.layouts[0].tokens if self.layouts else 0, dtype=torch.bool)
        for index, (layout, size) in enumerate(zip(self.layouts, self.sizes, strict=True)):
            found[index, layout.padding(*size)] = True
        return found

    def picture(self, index: int) -> Image.Image:
        """The upright image of a question.

        Raises:
            ChangedImage: The file has another image.
            UnreadableImage: It cannot be read.
        """
        return _read(self.manifest, self.frame.row(index, named=True))

    def _inside(self, index: int, regions: tuple[Region, ...]) -> Float[Tensor, "height width"]:
        width, height = self.sizes[index]
        return region_pixels(regions, self.manifest.root, width, height, mask_hashes(self.frame[index]))


def asked_questions(asked: Manifest, images: StudentImages) -> AskedQuestions:
    """Find the size, token places and regions of each question's image.

    Raises:
        ChangedImage: An image of unknown size has other content than in the manifest.
        UnreadableImage: It cannot be read.
    """
    rows = list(asked.frame.iter_rows(named=True))
    sizes = tuple(
        _read(asked, row).size if row["width"] is None or row["height"] is None else (row["width"], row["height"])
        for row in rows
    )
    return AskedQuestions(
        manifest=asked,
        sizes=sizes,
        layouts=tuple(images.layout(*size) for size in sizes),
        regions=tuple(regions_named(row["question"], row["answer"], read_regions(row["regions"])) for row in rows),
    )


def cell_name(layout: ImageLayout, token: int) -> str:
    """Where a token is: its row and column, counted from 1, and its view if there are several."""
    for number, view in enumerate(layout.views, start=1):
        if token in view.tokens:
            row, column = divmod(view.tokens.index(token), view.columns)
            place = f"row {row + 1}, column {column + 1}"
            return place if len(layout.views) == 1 else f"view {number}, {place}"
    return f"token {token + 1}, which has no place"


def _read(manifest: Manifest, row: Mapping[str, object]) -> Image.Image:
    path = manifest.path_of(str(row["image"]))
    pixel_hash = row["pixel_hash"]
    return read_expected_image(path, str(row["image_hash"]), None if pixel_hash is None else str(pixel_hash)).shown

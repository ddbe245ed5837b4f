"""What the regression reads: pixels with teacher features (targets) or with old tokens (anchors), and their order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import InputError, StoreError
from ...plain_text import as_typed
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ...teacher_cache.store import TeacherStore
from ..finite import is_finite
from ..inputs.collation import Sample, SampleImage, read_pixels
from ..inputs.image_processing import StudentImages
from ..inputs.sample_order import SampleOrder

FeatureSource = Callable[[Sequence[SampleImage], Tensor], Tensor]
"""Returns teacher features [images, cells, channels] on the student's grid, from images and their pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreFeatures:
    """E_v of a teacher store; verifies every row's checksum."""

    store: TeacherStore

    def __call__(
        self, images: Sequence[SampleImage], pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images cells channels"]:
        """Read the rows of images.

        Raises:
            StoreError: A row is missing, damaged, or not finite, or the store has no E_v.
        """
        E_v = self.store.read([image.image_hash for image in images], [image.pixel_hash for image in images]).E_v
        assert E_v is not None
        if not is_finite(E_v):
            wrong = next(image for image, row in zip(images, E_v, strict=True) if not is_finite(row))
            raise StoreError(
                f"the store {self.store.location} has NaN or infinite values in E_v of {wrong.path.name}. Check it "
                f"with `medalign store verify {as_typed(self.store.location)}`, and extract this image again"
            )
        return E_v


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomFeatures:
    """The control: a random two-layer network of the pixels of each cell, which knows nothing about medicine."""

    grid: PatchGrid
    channels: int
    seed: int

    def __call__(
        self, images: Sequence[SampleImage], pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images cells channels"]:
        """`relu(x A) B` for the pixels x of each cell; A and B are Gaussian, scaled by the square root of fan-in."""
        sides = (pixels.shape[2] // self.grid.rows, pixels.shape[3] // self.grid.columns)
        inside = pixels[:, :, : sides[0] * self.grid.rows, : sides[1] * self.grid.columns]
        cells = torch.nn.functional.unfold(inside, sides, stride=sides).transpose(1, 2)
        generator = torch.Generator().manual_seed(self.seed)
        A = torch.randn(cells.shape[2], self.channels, generator=generator) / cells.shape[2] ** 0.5
        B = torch.randn(self.channels, self.channels, generator=generator) / self.channels**0.5
        features: Tensor = (cells @ A).relu() @ B
        return features


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenFile:
    """Tokens of images in one raw file, in order, read by memory mapping."""

    path: Path
    images: int
    cells: int
    width: int
    dtype: str
    """Name of torch's dtype, that in which the tokens were computed."""

    @property
    def nbytes(self) -> int:
        itemsize: int = getattr(torch, self.dtype).itemsize
        return self.images * self.cells * self.width * itemsize

    def read(self, indices: Sequence[int]) -> Float[Tensor, "images cells width"]:
        """Read the tokens of some images.

        Raises:
            InputError: The file is missing or truncated.
        """
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size != self.nbytes:
            raise InputError(
                f"{self.path} has {size} bytes, but the old tokens of {self.images} anchors have {self.nbytes}. Run "
                "the same command with --resume to compute them again"
            )
        dtype = getattr(torch, self.dtype)
        mapped = torch.from_file(str(self.path), size=self.images * self.cells * self.width, dtype=dtype)
        return mapped.view(self.images, self.cells, self.width)[list(indices)]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSample:
    """A target with its features, or an anchor with its old tokens."""

    pixel_values: Float[Tensor, "3 size size"]
    features: Float[Tensor, "cells channels"] | None = None
    old_tokens: Float[Tensor, "cells width"] | None = None


def read_image_pixels(images: StudentImages, chosen: Sequence[SampleImage]) -> Float[Tensor, "images 3 size size"]:
    """Read images and preprocess them for the student.

    Raises:
        InputError: An image cannot be read, or is not the image of the manifest.
    """
    pixels = [
        read_pixels(images, Sample(question_id=image.path.name, question="", answer="", images=(image,)))
        for image in chosen
    ]
    return torch.cat([one for one in pixels if one is not None])


class TokenDataset(Dataset[TokenSample]):
    """Targets, then anchors."""

    def __init__(
        self,
        images: StudentImages,
        targets: Sequence[SampleImage],
        anchors: Sequence[SampleImage],
        source: FeatureSource,
        tokens: TokenFile,
    ) -> None:
        self._images = images
        self._targets, self._anchors = targets, anchors
        self._source, self._tokens = source, tokens

    def __len__(self) -> int:
        return len(self._targets) + len(self._anchors)

    def __getitem__(self, index: int) -> TokenSample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[TokenSample]:
        """The samples of a batch, targets first; their rows are read in one call."""
        number = len(self._targets)
        targets = [self._targets[index] for index in indices if index < number]
        places = [index - number for index in indices if index >= number]
        samples: list[TokenSample] = []
        if targets:
            pixels = read_image_pixels(self._images, targets)
            features = self._source(targets, pixels)
            samples += [TokenSample(pixel_values=one, features=two) for one, two in zip(pixels, features, strict=True)]
        if places:
            pixels = read_image_pixels(self._images, [self._anchors[place] for place in places])
            old = self._tokens.read(places)
            samples += [TokenSample(pixel_values=one, old_tokens=two) for one, two in zip(pixels, old, strict=True)]
        return samples


def collate_tokens(samples: Sequence[TokenSample]) -> dict[str, Any]:
    """Stack a batch: targets first, then anchors."""
    ordered = [*(one for one in samples if one.features is not None), *(one for one in samples if one.features is None)]
    batch: dict[str, Any] = {"pixel_values": torch.stack([sample.pixel_values for sample in ordered])}
    for name in ("features", "old_tokens"):
        values = [getattr(sample, name) for sample in ordered if getattr(sample, name) is not None]
        if values:
            batch[name] = torch.stack(values)
    return batch


class MixedOrder(SampleOrder):
    """For each step `targets` target images and `anchors` anchors; each kind in random order, all before any again.

    The order is a function of the seed only, so a run can be resumed at any step and with any number of processes.
    """

    def __init__(self, sizes: tuple[int, int], per_step: tuple[int, int], *, steps: int, seed: int) -> None:
        self._sizes, self._per_step = sizes, per_step
        self._steps, self._seed = steps, seed

    def __len__(self) -> int:
        return self._steps * sum(self._per_step)

    def __iter__(self) -> Iterator[int]:
        streams = [_shuffled(size, 2 * self._seed + kind) for kind, size in enumerate(self._sizes)]
        for _ in range(self._steps):
            for stream, number, offset in zip(streams, self._per_step, (0, self._sizes[0]), strict=True):
                for _ in range(number):
                    yield next(stream) + offset


def _shuffled(size: int, seed: int) -> Iterator[int]:
    """All numbers below `size` in random order, again and again."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(size, generator=generator).tolist()

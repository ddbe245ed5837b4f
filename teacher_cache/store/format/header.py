"""The store's format: its header, its names, and the few functions that writer and readers must agree on.

Version 2 is written; version 1, whose root digest covers less (`teacher_cache/store/reading/root_digest.py`), is still
read. docs/store-format.md is the same in words.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, PlainSerializer, PlainValidator, model_serializer

from ...geometry.patch_grid import PatchGrid
from ...geometry.square import Geometry, JpegScale
from ..file_names import WIDE_FOLDER
from .profiles import WIDER, ArraySpec, Profile, row_arrays

FORMAT_VERSION: Final = 2
"""Of new stores. A store keeps the version that it was made with until `medalign store convert`."""
ROWS_VERSION: Final = 1
"""What `format_version` is in the fingerprint of both versions, because rows mean the same in both."""
ATTRIBUTE = "medalign"
"""Key of the header in the Zarr group's attributes, and of the summary in index.parquet's metadata."""

CHECKSUM_BYTES = 4
"""Length of the little-endian crc32c after every chunk and after every shard index."""
ABSENT = 2**64 - 1
"""Offset and length, in a shard's index, of a chunk that does not exist."""

PLAIN_HASHING = "sha256"

_SMALLEST_SHARD = 64
_MOST_SHARD_FILES = 900
"""A store should stay below 1,000 objects."""

DataUse = Literal["public", "credentialed", "private"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
GridText = Annotated[
    PatchGrid,
    PlainValidator(lambda value: value if isinstance(value, PatchGrid) else PatchGrid.parse(str(value)[:99])),
    PlainSerializer(str, return_type=str),
]

_CONTENT_FIELDS = (
    "teacher",
    "weights_sha256",
    "features",
    "dtype",
    "image_size",
    "mean",
    "std",
    "geometry",
    "native_grid",
    "grid",
    "interpolation",
    "profile",
    "width",
    "hashing",
    "jpeg_scale",
)
_PLAN_FIELDS = ("segments", "shard_rows", "plan_sha256", "batch_size", "threads", "tolerance", "data_use")


class StoreHeader(BaseModel):
    """What a store says about itself; written once, before any data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format_version: Annotated[int, Field(ge=1, le=FORMAT_VERSION)] = FORMAT_VERSION  # a Literal takes 2.0 and true
    teacher: str
    weights_sha256: Sha256
    features: Literal["last-block", "final-norm"]
    """Which patch tokens E_v are; see docs/teachers.md."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Precision of the teacher's matrix products."""
    image_size: Annotated[int, Field(gt=0)]
    """Side of the square that the teacher saw, pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    geometry: Geometry
    native_grid: GridText
    """The teacher's own patch grid, before interpolation."""
    grid: GridText
    """The grid of the rows as they are stored, row-major from the top left."""
    interpolation: Literal["bilinear"] = "bilinear"
    """Bilinear, align_corners=False, in float32."""
    profile: Profile
    """How rows become bytes; a shard may have a wider one (`tolerance`)."""
    width: Annotated[int, Field(gt=0)]
    """b, channels of E_v."""
    hashing: Annotated[str, Field(pattern=r"^(sha256|hmac-sha256:[0-9a-f]{16})$")] = PLAIN_HASHING
    """How images are named: by SHA-256, or by HMAC-SHA256 of it with the key of this id."""
    jpeg_scale: JpegScale = "full"
    """`reduced`: large JPEGs were decoded at a half, a quarter or an eighth of their size. Absent where it is `full`,
    so that fingerprints of older stores stay as they are."""
    segments: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1), FailFast()]
    """Images planned by the first run and by every extension; each segment begins with a new shard."""
    shard_rows: Annotated[int, Field(gt=0)]
    plan_sha256: Sha256
    """Digest of the planned image hashes in row order."""
    batch_size: Annotated[int, Field(gt=0)]
    """Images in one forward pass; batches never straddle shards."""
    threads: Annotated[int, Field(gt=0)]
    """Of one worker's arithmetic. With `batch_size` it fixes the last bits of what a CPU computes."""
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Largest max |dS| of a row in `profile`; `None`: any that is finite."""
    data_use: DataUse
    title: str | None = None
    licence: str | None = None
    created_by: str

    @model_serializer(mode="wrap")
    def _without_full_scale(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        values = handler(self)
        if values.get("jpeg_scale") == "full":
            del values["jpeg_scale"]
        return values

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fields that determine what a row of a given image holds."""
        return hashlib.sha256(canonical_json(self.content())).hexdigest()

    def content(self) -> dict[str, Any]:
        """The fields of the fingerprint."""
        return {"format_version": ROWS_VERSION, **self.model_dump(mode="json", include=set(_CONTENT_FIELDS))}

    @property
    def planned(self) -> int:
        """Rows that stand for an image, failed ones included."""
        return sum(self.segments)

    @property
    def rows(self) -> int:
        """Length of the arrays: planned rows and the empty ones between segments."""
        return self._first_shards[-2] * self.shard_rows + self.segments[-1]

    @property
    def shards(self) -> int:
        return self._first_shards[-1]

    @cached_property
    def _first_shards(self) -> tuple[int, ...]:
        """The first shard of every segment, and the number of shards."""
        return tuple(accumulate((-(-images // self.shard_rows) for images in self.segments), initial=0))

    def shard_range(self, shard: int) -> range:
        """The planned rows of one shard; the last shard of a segment may be shorter.

        Raises:
            IndexError: there is no such shard.
        """
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} of {self.shards}")
        segment = bisect_right(self._first_shards, shard) - 1
        end = self._first_shards[segment] * self.shard_rows + self.segments[segment]
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, end))

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The store's profile and those that a shard may fall back to, from narrow to wide."""
        chain = [self.profile]
        while wider := WIDER.get(chain[-1]):
            chain.append(wider)
        return tuple(chain)

    def arrays(self, profile: Profile | None = None) -> tuple[ArraySpec, ...]:
        """What a row consists of in `profile`, by default the store's own."""
        return row_arrays(profile or self.profile, self.native_grid, self.grid, self.width)

    def array_key(self, profile: Profile, array: ArraySpec) -> str:
        """Folder of an array inside the store."""
        return array.name if profile == self.profile else f"{WIDE_FOLDER}/{profile}/{array.name}"

    def shard_key(self, profile: Profile, array: ArraySpec, shard: int) -> str:
        """Path of a shard's file inside the store (Zarr's default chunk key encoding)."""
        return "/".join([self.array_key(profile, array), "c", str(shard), *("0" for _ in array.shape)])

    def differences(self, other: "StoreHeader") -> list[str]:
        """Fields that must agree before one run may continue another, as `name: ours, not theirs`."""
        default = {"jpeg_scale": "full"}
        mine, theirs = default | self.model_dump(mode="json"), default | other.model_dump(mode="json")
        fields = _CONTENT_FIELDS + _PLAN_FIELDS
        return [f"{name}: {mine[name]}, not {theirs[name]}" for name in fields if mine[name] != theirs[name]]


def default_shard_rows(rows: int, arrays: int) -> int:
    """Rows of a shard, so that shards are worth resuming and their files number at most 900."""
    most_shards = _MOST_SHARD_FILES // (arrays + 1)
    return max(_SMALLEST_SHARD, -(-rows // most_shards))


def plan_digest(image_hashes: Iterable[str]) -> str:
    """SHA-256 over the planned image hashes, one line each, in row order."""
    return lines_digest(image_hashes)


def row_digest(values: Iterable[memoryview | bytes]) -> str:
    """SHA-256 over the raw little-endian values of a row's arrays, one after the other."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(value)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same text; for Python 2.0 and 2, or 1 and true, are equal."""
    return canonical_json(one) == canonical_json(other)


def lines_digest(lines: Iterable[str]) -> str:
    """SHA-256 over texts, each ended by a newline."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()

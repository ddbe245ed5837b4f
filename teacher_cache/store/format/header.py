"""The store format: the header, file keys, and the digest functions that the writer and readers share.

New stores have version 2. Version 1, whose root digest covers less (`teacher_cache/store/reading/root_digest.py`), can
still be read. docs/store-format.md describes the format in prose.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, PlainSerializer, PlainValidator, model_serializer

from ....choices import DataUse, Dtype, Features, Geometry, JpegScale, Profile
from ...geometry.patch_grid import PatchGrid
from ..file_names import WIDE_FOLDER
from .profiles import WIDER, ArraySpec, row_arrays

FORMAT_VERSION: Final = 2
"""Format version of new stores. A store keeps its version until `medalign store convert`."""
ROWS_VERSION: Final = 1
"""Value of `format_version` in the fingerprint for both versions, because their rows have the same meaning."""
ATTRIBUTE = "medalign"
"""Key of the header in the Zarr group's attributes, and of the summary in index.parquet's metadata."""

CHECKSUM_BYTES = 4
"""Size of the little-endian crc32c after every chunk and every shard index."""
ABSENT = 2**64 - 1
"""Offset and length of a missing chunk in a shard's index."""

PLAIN_HASHING = "sha256"

_SMALLEST_SHARD = 64
_MOST_SHARD_FILES = 900
"""Keeps the number of objects in a store below 1,000."""

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
    """The description of a store; it is written before any data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format_version: Annotated[int, Field(ge=1, le=FORMAT_VERSION)] = (
        FORMAT_VERSION  # a Literal would accept 2.0 and true
    )
    teacher: str
    weights_sha256: Sha256
    features: Features
    """Which patch tokens E_v consists of; see docs/teachers.md."""
    dtype: Dtype
    """Precision of the teacher's matrix products."""
    image_size: Annotated[int, Field(gt=0)]
    """Side of the teacher's square input, pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    geometry: Geometry
    native_grid: GridText
    """The teacher's own patch grid, before interpolation."""
    grid: GridText
    """The patch grid on which rows are read, row-major from the top left."""
    interpolation: Literal["bilinear"] = "bilinear"
    """Bilinear, align_corners=False, in float32."""
    profile: Profile
    """How rows are stored; a shard may have a wider profile (`tolerance`)."""
    width: Annotated[int, Field(gt=0)]
    """b, channels of E_v."""
    hashing: Annotated[str, Field(pattern=r"^(sha256|hmac-sha256:[0-9a-f]{16})$")] = PLAIN_HASHING
    """How images are identified: by SHA-256, or by its HMAC-SHA256 with the key of this id."""
    jpeg_scale: JpegScale = "full"
    """`reduced`: large JPEGs were decoded at a half, a quarter or an eighth of their size. `full` is omitted from the
    JSON, so that the fingerprints of older stores do not change."""
    segments: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1), FailFast()]
    """Numbers of images planned by the first run and by every extension; each segment starts with a new shard."""
    shard_rows: Annotated[int, Field(gt=0)]
    plan_sha256: Sha256
    """Digest of the planned image hashes in row order."""
    batch_size: Annotated[int, Field(gt=0)]
    """Images per forward pass; a batch never spans two shards."""
    threads: Annotated[int, Field(gt=0)]
    """CPU threads per worker. Together with `batch_size` it determines the last bits of results on a CPU."""
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Largest allowed max |dS| of a row in `profile`; `None`: any finite value."""
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
        """SHA-256 over the fields that determine the row of a given image."""
        return hashlib.sha256(canonical_json(self.content())).hexdigest()

    def content(self) -> dict[str, Any]:
        """The fields of the fingerprint."""
        return {"format_version": ROWS_VERSION, **self.model_dump(mode="json", include=set(_CONTENT_FIELDS))}

    @property
    def planned(self) -> int:
        """Number of planned images, including failed ones."""
        return sum(self.segments)

    @property
    def rows(self) -> int:
        """Length of the arrays: planned rows and the empty rows between segments."""
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
            raise IndexError(f"shard {shard} does not exist: the store has {self.shards} shards")
        segment = bisect_right(self._first_shards, shard) - 1
        end = self._first_shards[segment] * self.shard_rows + self.segments[segment]
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, end))

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The store's profile and the wider ones that a shard may fall back to, in order."""
        chain = [self.profile]
        while wider := WIDER.get(chain[-1]):
            chain.append(wider)
        return tuple(chain)

    def arrays(self, profile: Profile | None = None) -> tuple[ArraySpec, ...]:
        """The arrays of a row in `profile` (default: the store's own)."""
        return row_arrays(profile or self.profile, self.native_grid, self.grid, self.width)

    def array_key(self, profile: Profile, array: ArraySpec) -> str:
        """Folder of an array inside the store."""
        return array.name if profile == self.profile else f"{WIDE_FOLDER}/{profile}/{array.name}"

    def shard_key(self, profile: Profile, array: ArraySpec, shard: int) -> str:
        """Path of a shard's file inside the store (Zarr's default chunk key encoding)."""
        return "/".join([self.array_key(profile, array), "c", str(shard), *("0" for _ in array.shape)])

    def differences(self, other: "StoreHeader") -> list[str]:
        """Differences in the fields that must agree to continue a store, as `name: ours, not theirs`."""
        default = {"jpeg_scale": "full"}
        mine, theirs = default | self.model_dump(mode="json"), default | other.model_dump(mode="json")
        fields = _CONTENT_FIELDS + _PLAN_FIELDS
        return [f"{name}: {mine[name]}, not {theirs[name]}" for name in fields if mine[name] != theirs[name]]


def default_shard_rows(rows: int, arrays: int) -> int:
    """Default rows per shard: at least 64, and enough that all shards together have at most 900 files."""
    most_shards = _MOST_SHARD_FILES // (arrays + 1)
    return max(_SMALLEST_SHARD, -(-rows // most_shards))


def plan_digest(image_hashes: Iterable[str]) -> str:
    """SHA-256 over the planned image hashes, one line each, in row order."""
    return lines_digest(image_hashes)


def row_digest(values: Iterable[memoryview | bytes]) -> str:
    """SHA-256 over the concatenated raw little-endian values of a row's arrays."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(value)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values have the same text; in Python, 2.0 == 2 and 1 == True."""
    return canonical_json(one) == canonical_json(other)


def lines_digest(lines: Iterable[str]) -> str:
    """SHA-256 over lines, each terminated by a newline."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()

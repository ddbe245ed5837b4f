"""Version 1 of the store: its header, its names, and the few functions that writer and readers must agree on.

docs/store-format.md is the same in words.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError

from ...errors import StoreError
from ..geometry import Geometry, PatchGrid

FORMAT_VERSION: Final = 1
ATTRIBUTE = "medalign"
"""Key of the header in the Zarr group's attributes."""

PATCHES, ATTENTION = "E_v", "E_a"
GROUP_FILE = "zarr.json"
"""Zarr's metadata, of the group and in each array's folder."""
INDEX_FILE, FAILURES_FILE, LEDGER_FOLDER = "index.parquet", "failures.parquet", "ledger"
MANIFEST_FILE = "manifest-sha256.txt"
"""SHA-256 of every other file, as sha256sum prints it; written last, so it also says that the store is
finished."""

CHECKSUM_BYTES = 4
"""Length of the little-endian crc32c after every chunk and after every shard index."""
ABSENT = 2**64 - 1
"""Offset and length, in a shard's index, of a chunk that does not exist."""

DataUse = Literal["public", "credentialed", "private"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
GridText = Annotated[
    PatchGrid,
    PlainValidator(lambda value: value if isinstance(value, PatchGrid) else PatchGrid.parse(value)),
    PlainSerializer(str, return_type=str),
]

_CONTENT_FIELDS = (
    "format_version",
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
    "codec",
    "width",
)
_PLAN_FIELDS = ("rows", "shard_rows", "plan_sha256", "data_use")


class StoreHeader(BaseModel):
    """What a store says about itself; written once, before any data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format_version: Literal[1] = FORMAT_VERSION
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
    codec: Literal["float16"] = "float16"
    """How E_v is stored; E_a is always float32."""
    width: Annotated[int, Field(gt=0)]
    """b, channels of E_v."""
    rows: Annotated[int, Field(gt=0)]
    """One per distinct image of the plan, failed ones included."""
    shard_rows: Annotated[int, Field(gt=0)]
    plan_sha256: Sha256
    """Digest of the planned image hashes in row order."""
    data_use: DataUse
    created_by: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fields that determine what a row of a given image holds."""
        content = self.model_dump(mode="json", include=set(_CONTENT_FIELDS))
        return hashlib.sha256(canonical_json(content)).hexdigest()

    @property
    def shards(self) -> int:
        return -(-self.rows // self.shard_rows)

    def shard_range(self, shard: int) -> range:
        """The rows of one shard; the last shard may be shorter."""
        return range(shard * self.shard_rows, min(self.rows, (shard + 1) * self.shard_rows))

    def differences(self, other: "StoreHeader") -> list[str]:
        """Fields that must agree before one run may continue another, as `name: ours, not theirs`."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        fields = _CONTENT_FIELDS + _PLAN_FIELDS
        return [f"{name}: {mine[name]}, not {theirs[name]}" for name in fields if mine[name] != theirs[name]]


def read_header(path: Path) -> StoreHeader:
    """Read and validate the header of the store in folder `path`.

    Raises:
        StoreError: there is no store, it is a foreign Zarr group, of a newer format, or its header is
        damaged.
    """
    attributes = _read_json(path, path / GROUP_FILE).get("attributes", {})
    found = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(found, dict):
        raise StoreError(f"{path} is a Zarr group, but not a teacher store of medalign: it has no header")
    version = found.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreError(
            f"{path} has store format {version}; this medalign reads up to {FORMAT_VERSION}: "
            "pip install --upgrade medalign"
        )
    try:
        return StoreHeader.model_validate_json(json.dumps(found))
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise StoreError(f"the header of {path} (zarr.json) is not valid: {fields}") from error


def check_array_metadata(path: Path, header: StoreHeader) -> None:
    """Check that both arrays have the shape, shards and codecs that the header implies.

    Raises:
        StoreError: an array is missing or of another layout.
    """
    for name in (PATCHES, ATTENTION):
        found = _read_json(path, path / name / GROUP_FILE)
        problems = [
            f"{field} is {value!r} and should be {wanted!r}"
            for field, value, wanted in _layout(found, header, name)
            if value != wanted
        ]
        if problems:
            listed = "; ".join(problems)
            raise StoreError(f"array {name} of {path} does not match the store's header: {listed}")


def row_shape(header: StoreHeader, name: str) -> tuple[int, ...]:
    """Shape of one row of array `name`: [N, b] or [N]."""
    return (header.grid.patches, header.width) if name == PATCHES else (header.grid.patches,)


def row_dtype(name: str) -> str:
    """numpy's name of the stored type; always little-endian."""
    return "<f2" if name == PATCHES else "<f4"


def shard_key(name: str, shard: int) -> str:
    """Path of a shard's file inside the store (Zarr's default chunk key encoding)."""
    return f"{name}/c/{shard}/0/0" if name == PATCHES else f"{name}/c/{shard}/0"


def plan_digest(image_hashes: Iterable[str]) -> str:
    """SHA-256 over the planned image hashes, one line each, in row order."""
    return _lines_digest(image_hashes)


def row_digest(patches: bytes | memoryview, attention: bytes | memoryview) -> str:
    """SHA-256 over one row's stored E_v bytes and then its E_a bytes."""
    digest = hashlib.sha256(patches)
    digest.update(attention)
    return digest.hexdigest()


def root_digest(fingerprint: str, rows: Iterable[tuple[str, str]], failed: Iterable[str]) -> str:
    """SHA-256 over the logical content: what each image's row holds, whatever the order, shards or worker
    count.

    `rows` are pairs of image hash and row digest; `failed` are the hashes of images without a row.
    """
    lines = [f"{image} {digest}" for image, digest in sorted(rows)]
    return _lines_digest([fingerprint, *lines, *(f"{image} failed" for image in sorted(failed))])


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _lines_digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _read_json(store: Path, file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        name = file.relative_to(store)
        raise StoreError(f"{store} is not a teacher store: {name} does not exist") from None
    except (ValueError, OSError) as error:
        raise StoreError(f"{file} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{file} is not a JSON object")
    return value


def _layout(found: dict[str, Any], header: StoreHeader, name: str) -> list[tuple[str, Any, Any]]:
    """(field, value found, value that format version 1 asks for)."""
    row = list(row_shape(header, name))
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    codecs = found.get("codecs") or [{}]
    sharding = codecs[0].get("configuration", {})
    grid = found.get("chunk_grid", {}).get("configuration", {})
    return [
        ("shape", found.get("shape"), [header.rows, *row]),
        ("data_type", found.get("data_type"), "float16" if name == PATCHES else "float32"),
        ("fill_value", found.get("fill_value"), "NaN"),
        ("shard shape", grid.get("chunk_shape"), [header.shard_rows, *row]),
        ("codec", [codec.get("name") for codec in codecs], ["sharding_indexed"]),
        ("chunk shape", sharding.get("chunk_shape"), [1, *row]),
        ("chunk codecs", sharding.get("codecs"), [little, {"name": "crc32c"}]),
        ("index codecs", sharding.get("index_codecs"), [little, {"name": "crc32c"}]),
        ("index location", sharding.get("index_location"), "end"),
    ]

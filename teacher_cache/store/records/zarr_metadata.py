"""Zarr's own files of a store: the group with the header, and the arrays that the header implies."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ....errors import StoreError
from ..access.store_files import LocalFiles, StoreFiles
from ..file_names import GROUP_FILE, INDEX_FILE, WIDE_FOLDER
from ..filesystem.durable_files import make_folders, write_atomically
from ..format.header import ATTRIBUTE, FORMAT_VERSION, StoreHeader, same_json
from ..format.profiles import ArraySpec, Profile
from ..store_errors import DamagedStore
from .schemas import MOST_METADATA, check_header, describe, parse_json


def read_header(files: StoreFiles | Path) -> StoreHeader:
    """Read and validate the header of a store.

    Raises:
        StoreError: there is no store, it is a foreign Zarr group, of a newer format, or its header is
        damaged.
    """
    files = LocalFiles(files) if isinstance(files, Path) else files
    attributes = read_json(files, GROUP_FILE).get("attributes", {})
    found = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(found, dict):
        raise StoreError(f"{files.location} is a Zarr group, but not a teacher store of medalign: it has no header")
    return parse_header(found, f"{files.location} ({GROUP_FILE})")


def parse_header(found: dict[str, Any], source: str) -> StoreHeader:
    """Validate a header; `source` is where it was found.

    Raises:
        StoreError: it is of a newer format, or not valid.
    """
    version = found.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreError(
            f"{source} has store format {str(version)[:20]}; this medalign reads up to {FORMAT_VERSION}: "
            "pip install --upgrade medalign"
        )
    try:
        header = StoreHeader.model_validate_json(json.dumps(found))
    except ValidationError as error:
        raise DamagedStore(f"the header of {source} is not valid: {describe(error)}") from error
    check_header(header, source)
    return header


def metadata_keys(header: StoreHeader) -> list[str]:
    """Paths inside the store of all Zarr metadata."""
    groups = [GROUP_FILE, f"{WIDE_FOLDER}/{GROUP_FILE}"]
    groups += [f"{WIDE_FOLDER}/{profile}/{GROUP_FILE}" for profile in header.profiles[1:]]
    return groups + [
        f"{header.array_key(profile, array)}/{GROUP_FILE}"
        for profile in header.profiles
        for array in header.arrays(profile)
    ]


def write_metadata(store: Path, header: StoreHeader, keys: Sequence[str] | None = None) -> None:
    """Write the group and all arrays, or some of these files; each atomically, the header last, and no data."""
    files = _create(header)
    for key in reversed(metadata_keys(header) if keys is None else keys):
        make_folders((store / key).parent)
        write_atomically(store / key, files[key])


def check_arrays(files: StoreFiles, header: StoreHeader, profiles: Iterator[Profile] | tuple[Profile, ...]) -> None:
    """Check that the arrays of some profiles have the shape, shards and codecs that the header implies.

    Raises:
        DamagedStore: an array is missing or of another layout.
    """
    for profile in profiles:
        for array in header.arrays(profile):
            check_array(files, header, profile, array)


def check_array(files: StoreFiles, header: StoreHeader, profile: Profile, array: ArraySpec) -> None:
    """Check that one array has the shape, shards and codecs that the header implies.

    Raises:
        DamagedStore: it is missing or of another layout.
    """
    key = header.array_key(profile, array)
    found = read_json(files, f"{key}/{GROUP_FILE}")
    try:
        layout = _layout(found, header, array)
    except (AttributeError, TypeError, LookupError) as error:
        raise DamagedStore(f"{key}/{GROUP_FILE} of {files.location} is no array's metadata") from error
    problems = [
        f"{field} is {repr(value)[:200]} and should be {wanted!r}"
        for field, value, wanted in layout
        if not same_json(value, wanted)
    ]
    if problems:
        listed = "; ".join(problems)
        raise DamagedStore(f"array {key} of {files.location} does not match the store's header: {listed}")


def read_json(files: StoreFiles, key: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StoreError: the file is absent or holds something else.
    """
    try:
        value = parse_json(files.read(key), MOST_METADATA, f"{key} of {files.location}")
    except (FileNotFoundError, NotADirectoryError):
        if files.exists(INDEX_FILE):
            raise DamagedStore(f"{key} of {files.location} is gone") from None
        raise StoreError(f"{files.location} is not a teacher store: {key} does not exist") from None
    except OSError as error:
        raise DamagedStore(f"{key} of {files.location} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise DamagedStore(f"{key} of {files.location} is not a JSON object")
    return value


def _create(header: StoreHeader) -> dict[str, bytes]:
    """Path inside the store -> content."""
    from ...compat.zarr import NewArray, group_files  # only writers need zarr; stores are read without it

    arrays = [
        NewArray(
            key=header.array_key(profile, array),
            shape=(header.rows, *array.shape),
            shard_rows=header.shard_rows,
            dtype=array.dtype,
            compressed=array.compressed,
            axes=["image", *array.axes],
        )
        for profile in header.profiles
        for array in header.arrays(profile)
    ]
    return group_files({ATTRIBUTE: header.model_dump(mode="json")}, arrays, [WIDE_FOLDER])


def _layout(found: dict[str, Any], header: StoreHeader, array: ArraySpec) -> list[tuple[str, Any, Any]]:
    """(field, value found, value that format version 1 asks for)."""
    row = list(array.shape)
    little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    single = {"name": "bytes"} if array.dtype == "|i1" else little
    codecs = found.get("codecs") or [{}]
    sharding = codecs[0].get("configuration", {})
    inner = [codec.get("name") for codec in sharding.get("codecs", [])]
    grid = found.get("chunk_grid", {}).get("configuration", {})
    return [
        ("zarr_format", found.get("zarr_format"), 3),
        ("node_type", found.get("node_type"), "array"),
        ("shape", found.get("shape"), [header.rows, *row]),
        ("data_type", found.get("data_type"), np.dtype(array.dtype).name),
        ("fill_value", found.get("fill_value"), "NaN" if "f" in array.dtype else 0),
        ("shard shape", grid.get("chunk_shape"), [header.shard_rows, *row]),
        ("codec", [codec.get("name") for codec in codecs], ["sharding_indexed"]),
        ("chunk shape", sharding.get("chunk_shape"), [1, *row]),
        ("byte order", (sharding.get("codecs") or [{}])[0], single),
        ("chunk codecs", inner, ["bytes", "blosc", "crc32c"] if array.compressed else ["bytes", "crc32c"]),
        ("index codecs", sharding.get("index_codecs"), [little, {"name": "crc32c"}]),
        ("index location", sharding.get("index_location"), "end"),
    ]

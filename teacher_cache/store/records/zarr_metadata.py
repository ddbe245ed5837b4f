"""The Zarr metadata of a store: the group with the header, and the arrays that follow from the header."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ....choices import Profile
from ....errors import StoreError
from ....plain_text import as_typed, is_url
from ....suggestions import did_you_mean, from_here, respelled, to_pass
from ..access.store_files import LocalFiles, StoreFiles
from ..file_names import GROUP_FILE, INDEX_FILE, WIDE_FOLDER
from ..filesystem.durable_files import make_folders, write_atomically
from ..format.header import ATTRIBUTE, FORMAT_VERSION, StoreHeader, same_json
from ..format.profiles import ArraySpec
from ..store_errors import DamagedStore
from .schemas import MOST_METADATA, check_header, describe, parse_json


def read_header(files: StoreFiles | Path) -> StoreHeader:
    """Read and validate the header of a store.

    Raises:
        StoreError: there is no store, it is a Zarr group of other software, its format is newer, or its header is
            damaged.
    """
    files = LocalFiles(files) if isinstance(files, Path) else files
    attributes = read_json(files, GROUP_FILE).get("attributes", {})
    header = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(header, dict):
        raise StoreError(
            f"{files.location} is a Zarr group, but not a medalign teacher store: it has no header{_another(files)}"
        )
    return parse_header(header, f"{files.location} ({GROUP_FILE})")


def parse_header(values: dict[str, Any], source: str) -> StoreHeader:
    """Validate a header; `source` names the file that it comes from.

    Raises:
        StoreError: its format is newer, or it is invalid.
    """
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreError(
            f"{source} has store format {str(version)[:20]}, but this medalign version reads up to {FORMAT_VERSION}: "
            "run `pip install --upgrade medalign`"
        )
    try:
        header = StoreHeader.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise DamagedStore(f"the header of {source} is invalid: {describe(error)}") from error
    check_header(header, source)
    return header


def metadata_keys(header: StoreHeader) -> list[str]:
    """Paths of all Zarr metadata files inside the store."""
    groups = [GROUP_FILE, f"{WIDE_FOLDER}/{GROUP_FILE}"]
    groups += [f"{WIDE_FOLDER}/{profile}/{GROUP_FILE}" for profile in header.profiles[1:]]
    return groups + [
        f"{header.array_key(profile, array)}/{GROUP_FILE}"
        for profile in header.profiles
        for array in header.arrays(profile)
    ]


def write_metadata(store: Path, header: StoreHeader, keys: Sequence[str] | None = None) -> None:
    """Write the metadata of the group and all arrays, or the files in `keys`; each atomically, the header last."""
    files = _create(header)
    for key in reversed(metadata_keys(header) if keys is None else keys):
        make_folders((store / key).parent)
        write_atomically(store / key, files[key])


def check_arrays(files: StoreFiles, header: StoreHeader, profiles: Iterator[Profile] | tuple[Profile, ...]) -> None:
    """Check that the arrays of some profiles have the shape, shards and codecs that follow from the header.

    Raises:
        DamagedStore: an array is missing or has a different layout.
    """
    for profile in profiles:
        for array in header.arrays(profile):
            check_array(files, header, profile, array)


def check_array(files: StoreFiles, header: StoreHeader, profile: Profile, array: ArraySpec) -> None:
    """Check that one array has the shape, shards and codecs that follow from the header.

    Raises:
        DamagedStore: it is missing or has a different layout.
    """
    key = header.array_key(profile, array)
    metadata = read_json(files, f"{key}/{GROUP_FILE}")
    try:
        layout = _layout(metadata, header, array)
    except (AttributeError, TypeError, LookupError) as error:
        raise DamagedStore(f"{key}/{GROUP_FILE} of {files.location} is not the metadata of a Zarr array") from error
    problems = [
        f"{field} is {repr(value)[:200]}, but should be {expected!r}"
        for field, value, expected in layout
        if not same_json(value, expected)
    ]
    if problems:
        listed = "; ".join(problems)
        raise DamagedStore(f"array {key} of {files.location} does not match the store's header: {listed}")


def read_json(files: StoreFiles, key: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StoreError: the file is missing or is not a JSON object.
    """
    try:
        value = parse_json(files.read(key), MOST_METADATA, f"{key} of {files.location}")
    except (FileNotFoundError, NotADirectoryError):
        if files.exists(INDEX_FILE):
            raise DamagedStore(f"{key} of {files.location} is missing") from None
        packed = files.location.lower().endswith(".zip")
        unpack = f"`medalign store unpack {as_typed(files.location)} --out STORE.zarr`"
        how = f"; {unpack} unpacks a packed store" if packed else _another(files)
        if absent := why_absent(files.location):
            how = f", nor does this path{absent}"
        raise StoreError(f"{files.location} is not a teacher store: {key} does not exist{how}") from None
    except OSError as error:
        raise DamagedStore(f"{key} of {files.location} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise DamagedStore(f"{key} of {files.location} is not a JSON object")
    return value


def why_absent(location: str) -> str:
    """For a path that does not exist, the one that may be meant, or what to check; empty for others and for URLs."""
    path = Path(location)
    if is_url(location) or path.exists():
        return ""
    near = respelled(path, _looks_like_store)
    if near is not None:
        return did_you_mean([str(near)])
    return f": check its spelling{from_here(path)}, or whether a disk or folder is not mounted"


def _another(files: StoreFiles) -> str:
    """Advice which folder to pass instead of a wrong one on this machine; empty for a URL."""
    if is_url(files.location):
        return ""
    advice = to_pass(Path(files.location), _looks_like_store, f"pass a folder that has {GROUP_FILE} and {INDEX_FILE}")
    return f"; {advice}"


def _looks_like_store(folder: Path) -> bool:
    return (folder / GROUP_FILE).is_file() and (folder / INDEX_FILE).is_file()


def _create(header: StoreHeader) -> dict[str, bytes]:
    """Metadata files: path inside the store -> content."""
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


def _layout(metadata: dict[str, Any], header: StoreHeader, array: ArraySpec) -> list[tuple[str, Any, Any]]:
    """(field, actual value, expected value) for every checked field of an array's metadata."""
    row = list(array.shape)
    little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    single = {"name": "bytes"} if array.dtype == "|i1" else little
    codecs = metadata.get("codecs") or [{}]
    sharding = codecs[0].get("configuration", {})
    inner = [codec.get("name") for codec in sharding.get("codecs", [])]
    grid = metadata.get("chunk_grid", {}).get("configuration", {})
    return [
        ("zarr_format", metadata.get("zarr_format"), 3),
        ("node_type", metadata.get("node_type"), "array"),
        ("shape", metadata.get("shape"), [header.rows, *row]),
        ("data_type", metadata.get("data_type"), np.dtype(array.dtype).name),
        ("fill_value", metadata.get("fill_value"), "NaN" if "f" in array.dtype else 0),
        ("shard shape", grid.get("chunk_shape"), [header.shard_rows, *row]),
        ("codec", [codec.get("name") for codec in codecs], ["sharding_indexed"]),
        ("chunk shape", sharding.get("chunk_shape"), [1, *row]),
        ("byte order", (sharding.get("codecs") or [{}])[0], single),
        ("chunk codecs", inner, ["bytes", "blosc", "crc32c"] if array.compressed else ["bytes", "crc32c"]),
        ("index codecs", sharding.get("index_codecs"), [little, {"name": "crc32c"}]),
        ("index location", sharding.get("index_location"), "end"),
    ]

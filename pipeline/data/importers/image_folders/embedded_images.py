"""Images inside a Parquet or ZIP file: written to files beside the manifest.

Files are written atomically; an image that already exists with the same bytes is not written again, so an import can
be repeated.
"""

import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .....atomic import AtomicFile
from .....errors import InputError
from .....progress import Progress
from .....teacher_cache.images import image_hash
from ...manifest import is_image_name
from ...saved_tables import METADATA_KEY
from ..common import shortened
from .image_files import is_system_name


class StoredName(str):
    """Name of an image in the folder for unpacked images."""

    __slots__ = ()


BATCH_ROWS = 64
"""Rows of a Parquet file in memory at once; images are large."""
_SUFFIXES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"RIFF": ".webp",
}
"""Suffix by the first bytes of a file; only for people, decoders check the bytes."""
LFS_POINTER = b"version https://git-lfs"


def read_parquet(
    path: Path, images: Collection[str], texts: Collection[str], unpacked: Path | None, progress: Progress
) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file; images inside are written below `unpacked` and replaced by their names.

    Columns in `images` have bytes, structs of `bytes` and `path` (the Hugging Face `Image` feature), or lists of these.
    A struct without bytes gives its path; printable bytes are also a path. Bytes in columns of `texts` are UTF-8, as
    Spark, Hive and Impala write text; bytes in other columns are skipped.

    Raises:
        InputError: It is not a Parquet file, it contains images but there is no folder for them, or a text is not
            UTF-8.
    """
    with _reading(path), pq.ParquetFile(path) as file:
        names = _distinct_names(path, file.schema_arrow)
        progress.start(f"reading {path.name}", file.metadata.num_rows)
        schema = pa.schema([field.with_type(_in_microseconds(field.type)) for field in file.schema_arrow])
        number = 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for row in pa.Table.from_batches([batch]).cast(schema, safe=False).to_pylist():
                number += 1
                read = {name: _stored(row[name], path, unpacked) for name in images}
                read |= {name: _decoded(row[name], f"{path}: row {number}: {name}") for name in texts}
                unused = {name: None for name in names if isinstance(row[name], bytes)}
                yield row | unused | read
                progress.advance()


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file.

    Raises:
        InputError: It is not a Parquet file, or two columns have the same name.
    """
    with _reading(path), pq.ParquetFile(path) as file:
        return _distinct_names(path, file.schema_arrow)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, OverflowError, KeyError, pa.ArrowException) as error:  # dates out of Python's range
        raise InputError(f"{path} cannot be read as Parquet: {_reason(path, error)}") from error


def _distinct_names(path: Path, schema: pa.Schema) -> list[str]:
    names = [str(name) for name in schema.names]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path} has several columns with the same name: {', '.join(repeated)}; rename them")
    return names


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """An Arrow type with times in microseconds, Python's resolution; pandas writes nanoseconds."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in kind])
    return kind


def _decoded(value: Any, column: str) -> Any:
    """A value with its bytes decoded as text; fixed-size bytes may be padded with NUL."""
    if isinstance(value, bytes):
        try:
            return value.rstrip(b"\0").decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{column} has bytes that are not UTF-8 text ({error.reason})") from error
    if isinstance(value, list | tuple):
        return type(value)(_decoded(item, column) for item in value)
    if isinstance(value, dict):
        return {_decoded(key, column): _decoded(item, column) for key, item in value.items()}
    return value


def _stored(value: Any, path: Path, unpacked: Path | None) -> Any:
    """The name of an image, or of each image in a list; `None` for neither."""
    if isinstance(value, list):
        return [_stored(item, path, unpacked) for item in value]
    if isinstance(value, dict) and value.keys() & {"bytes", "path"}:
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, bytes):
        return value
    if (name := _as_name(value)) is not None:
        return name
    if unpacked is None:
        raise InputError(f"{path} contains its images, but there is no folder to write them to")
    digest = image_hash(value)
    name = f"{digest[:2]}/{digest}{_suffix(value)}"
    _write_once(unpacked / name, value)
    return StoredName(name)


def _as_name(data: bytes) -> str | None:
    """Decode bytes that are a file name: no image format is one line of text."""
    try:
        name = data.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return name if name.isprintable() else None


def _suffix(data: bytes) -> str:
    if data[128:132] == b"DICM":
        return ".dcm"
    return next((suffix for head, suffix in _SUFFIXES.items() if data.startswith(head)), "")


def unzip(archive: Path, unpacked: Path, progress: Progress) -> Path:
    """Unpack a ZIP file of images below `unpacked` and return it; hidden and AppleDouble entries are skipped.

    Raises:
        InputError: The file is damaged, or an entry would leave the folder.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            outside = [entry.filename for entry in opened.infolist() if not is_image_name(entry.filename)]
            if outside:
                raise InputError(f"{archive} has entries that lead out of its folder; {shortened(outside)}")
            entries = [entry for entry in opened.infolist() if not entry.is_dir() and not _is_system(entry.filename)]
            progress.start(f"unpacking {archive.name}", len(entries))
            for entry in entries:
                place = unpacked / entry.filename
                if not (place.is_file() and _has_crc(place, entry.file_size, entry.CRC)):
                    _write_once(place, opened.read(entry))
                progress.advance()
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive} cannot be unpacked: {_reason(archive, error)}") from error
    return unpacked


def _is_system(name: str) -> bool:
    return any(map(is_system_name, PurePosixPath(name).parts))


def _has_crc(path: Path, size: int, crc: int) -> bool:
    return path.stat().st_size == size and zlib.crc32(path.read_bytes()) == crc


def _write_once(path: Path, data: bytes) -> None:
    """Write a file atomically, unless it exists with these bytes."""
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with AtomicFile(path) as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _reason(path: Path, error: Exception) -> str:
    """The reason in words; a clone without Git LFS has pointers instead of large files."""
    try:
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                return "it is only a Git LFS pointer; fetch the file with `git lfs pull`"
    except OSError:
        pass
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def parquet_files(src: Path, patterns: Sequence[str]) -> list[Path]:
    """The Parquet files of a folder by the first pattern that matches any, or SRC itself if it is a file.

    Manifests in the folder are skipped.
    """
    if src.is_file():
        return [src]
    for pattern in patterns:
        found = [path for path in sorted(src.glob(pattern)) if not (is_system_name(path.name) or _is_manifest(path))]
        if found:
            return found
    return []


def _is_manifest(path: Path) -> bool:
    try:
        return METADATA_KEY.encode() in (pq.read_metadata(path).metadata or {})
    except (OSError, ValueError, pa.ArrowException):  # reading it reports why
        return False

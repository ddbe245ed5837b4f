"""Validation of a store's small files, done once, before their content is used.

A store may come from an untrusted source, with every digest correct. Therefore files that are read whole have a maximum
size; JSON is parsed strictly (UTF-8 without a byte order mark, no NaN, bounded depth); every model forbids unknown
fields; validation of a long list stops at its first invalid item (pydantic would keep a report of every one, hundreds
of times the size of the file); and the numbers of a header are bounded before anything is allocated or counted with
them. `parquet_guard.py` does the same for Parquet.

To add a file or a field: write a pydantic model (`strict`, `extra="forbid"`) with a range for each number and a maximum
length for each string, read the file with `parse_model`, and add a case to
tests/teacher_cache/store/records/test_schemas.py.
"""

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from ..format.header import StoreHeader
from ..store_errors import DamagedStore

Model = TypeVar("Model", bound=BaseModel)

MOST_METADATA: Final = 1 << 20
"""Maximum size of a zarr.json, in bytes."""
MOST_LIST: Final = 16 << 20
"""Maximum size of manifest-sha256.txt, in bytes: some 100,000 files; a store should have fewer than 1,000."""
MOST_SHARDS: Final = 1 << 20
"""Limited by the byte ranges of write locks (docs/store-format.md)."""
MOST_SHARD_ROWS: Final = 1 << 17
MOST_IMAGES: Final = 1_000_000_000
MOST_ROW_VALUES: Final = 1 << 26
"""Maximum number of values in one image's E_v or S, on either grid: 256 MB in float32."""

_BOM: Final = b"\xef\xbb\xbf"
_SHOWN, _LONGEST, _MOST_LISTED = 3, 80, 1000


def parse_json(data: bytes, most: int, where: str) -> Any:
    """Parse a JSON file of at most `most` bytes.

    Raises:
        DamagedStore: it is larger, starts with a byte order mark, or is not strict JSON in UTF-8.
    """
    check_text(data, most, where)
    try:
        return from_json(data, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        raise DamagedStore(f"{where} is damaged: it is not valid JSON: {error}") from error


def parse_model(model: type[Model], data: bytes | str, most: int, where: str) -> Model:
    """Parse a JSON file of at most `most` bytes and validate it as `model`.

    Raises:
        DamagedStore: it is larger, or is not a valid `model`.
    """
    check_text(data, most, where)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise DamagedStore(f"{where} is damaged: {describe(error)}") from error


def check_text(data: bytes | str, most: int, where: str) -> None:
    """Check the size and the first bytes of a text file.

    Raises:
        DamagedStore: it is empty, has more than `most` bytes, or starts with a byte order mark.
    """
    if not data:
        raise DamagedStore(f"{where} is damaged: it is empty")
    if len(data) > most:
        raise DamagedStore(f"{where} is damaged: it has {len(data)} bytes, but at most {most} are allowed")
    if isinstance(data, bytes) and data.startswith(_BOM):
        raise DamagedStore(f"{where} is damaged: it starts with a byte order mark, so an editor has re-saved it")


def describe(error: ValidationError) -> str:
    """The first few validation errors of pydantic, shortened, in printable text."""
    if error.error_count() > _MOST_LISTED:  # a list of them would take hundreds of bytes for each
        return f"{error.error_count()} of its values are invalid"
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    messages = [f"{_field(problem['loc'])}: {problem['msg']}" for problem in problems[:_SHOWN]]
    more = [f"{len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "; ".join([*messages, *more])


def check_header(header: StoreHeader, where: str) -> None:
    """Check that no number of a header makes a reader allocate or count excessively.

    Raises:
        DamagedStore: a number is too large; the message lists all of them.
    """
    # the first two are computed without `header.shards`, which would loop over unchecked numbers
    images, shards = sum(header.segments), sum(-(-count // header.shard_rows) for count in header.segments)
    patches = max(header.native_grid.patches, header.grid.patches)
    bounds = [
        ("images in segments", images, MOST_IMAGES),
        ("shards", shards, MOST_SHARDS),
        ("shard_rows", header.shard_rows, MOST_SHARD_ROWS),
        ("image_size", header.image_size, 1 << 16),
        ("values of S", patches * patches, MOST_ROW_VALUES),
        ("values of E_v", patches * header.width, MOST_ROW_VALUES),
    ]
    wrong = [f"{_number(value)} {name}, at most {most}" for name, value, most in bounds if value > most]
    if not all(abs(value) < 1e6 for value in (*header.mean, *header.std)) or min(header.std) <= 0:
        wrong.append("mean or std that cannot normalize an image")
    if wrong:
        raise DamagedStore(f"the header of {where} is invalid: {'; '.join(wrong)}")


def _field(location: tuple[int | str, ...]) -> str:
    name = ".".join(map(str, location)) or "the file"
    return name if len(name) <= _LONGEST and name.isprintable() else ascii(name[:_LONGEST])


def _number(value: int) -> str:
    return str(value) if value < 10**20 else f"2^{value.bit_length() - 1} or more"

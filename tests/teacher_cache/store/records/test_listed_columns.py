"""What a message says of the columns of a file that is no table of a store, however many there are."""

import pyarrow as pa
import pytest
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.records.index import failures_table, read_columns
from medalign.teacher_cache.store.store_errors import DamagedStore
from pyarrow import parquet
from stores import store_header


def message(folder, columns: dict[str, pa.Array]) -> str:
    parquet.write_table(pa.table(columns), folder / "failures.parquet", compression="zstd")
    with pytest.raises(DamagedStore) as raised:
        read_columns(LocalFiles(folder), "failures.parquet", ["row"], store_header(range(2)))
    return str(raised.value)


@pytest.mark.parametrize("count", [1, 11, 12, 13, 40])
def test_at_most_twelve_columns_are_named(count, tmp_path):
    """The middle of a long message is left out."""
    text = message(tmp_path, {f"<{number}>": pa.nulls(1, pa.int8()) for number in range(count)})
    last = min(count, 12) - 1
    assert "its columns are '<0>' " in text
    assert f"'<{last}>' int8, but should be 'image_hash' string, " in text


def test_names_and_types_are_cut_to_twenty_characters(tmp_path):
    zone = pa.timestamp("us", "Europe/Berlin")
    text = message(tmp_path, {"a" * 20: pa.nulls(1, pa.int8()), "b" * 21: pa.nulls(1, zone)})
    assert f"its columns are '{'a' * 20}' int8, '{'b' * 20}' timestamp[us, tz=Eur, but should be" in text


@pytest.mark.parametrize("compression", ["none", "zstd", "snappy", "gzip", "lz4", "brotli"])
def test_columns_are_uncompressed_or_compressed_with_zstandard(compression, tmp_path):
    table = failures_table([], ["a pipe"])
    parquet.write_table(table, tmp_path / "failures.parquet", compression=compression, use_dictionary=False)
    files, header = LocalFiles(tmp_path), store_header(range(2))
    if compression in ("none", "zstd"):
        assert read_columns(files, "failures.parquet", ["reason"], header).to_pylist() == [{"reason": "a pipe"}]
    else:
        with pytest.raises(DamagedStore, match="columns with a codec or type that stores do not use"):
            read_columns(files, "failures.parquet", ["reason"], header)


def test_a_footer_of_more_than_64_mebibytes_is_not_read(tmp_path):
    """The file is sparse."""
    size = (64 << 20) + 1
    with (tmp_path / "failures.parquet").open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(size.to_bytes(4, "little") + b"PAR1")
    with pytest.raises(DamagedStore, match=f"its footer has {size} bytes, more than {size - 1}"):
        read_columns(LocalFiles(tmp_path), "failures.parquet", ["row"], store_header(range(2)))

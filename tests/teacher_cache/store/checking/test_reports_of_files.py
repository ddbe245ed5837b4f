"""What a verification says of each file: the manifest, the rows of tables and of data, and what signing puts right."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from forgeries import edit_images, rewrite_manifest, write_table
from harms import contents
from medalign.errors import StoreError
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.store.access import store_files
from medalign.teacher_cache.store.checking import partial_view, small_file_checks
from medalign.teacher_cache.store.checking.signing import sign
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.signatures.signing_keys import SigningKey
from pyarrow import parquet
from stores import write_store

MANIFEST = "manifest-sha256.txt"
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))


def about(store: Path, key: str, quick: bool = True) -> list[str]:
    return [problem.what for problem in verify(store, quick=quick).problems if problem.key == key]


def without(*parts: str) -> Callable[[Path], None]:
    """Take the lines with one of these parts out of the manifest."""

    def edit(store: Path) -> None:
        lines = (store / MANIFEST).read_text().splitlines(keepends=True)
        (store / MANIFEST).write_text("".join(line for line in lines if not any(part in line for part in parts)))

    return edit


def with_line(key: str) -> Callable[[Path], None]:
    """List a file that the store does not have."""

    def edit(store: Path) -> None:
        lines = (store / MANIFEST).read_text().splitlines(keepends=True)
        lines.append(f"{hashlib.sha256(b'').hexdigest()}  {key}\n")
        (store / MANIFEST).write_text("".join(sorted(lines, key=lambda line: line[66:])))

    return edit


def with_digest(key: str) -> Callable[[Path], None]:
    def edit(store: Path) -> None:
        lines = (store / MANIFEST).read_text().splitlines()
        lines = [f"{'0' * 64}  {key}" if line.endswith(f"  {key}") else line for line in lines]
        (store / MANIFEST).write_text("\n".join([*lines, ""]))

    return edit


def reversed_lines(store: Path) -> None:
    lines = (store / MANIFEST).read_text().splitlines(keepends=True)
    (store / MANIFEST).write_text("".join(reversed(lines)))


@pytest.mark.parametrize("data", [b"", b"x", b"\xff\xfe", b"0" * 64 + b"  README.md"])
def test_a_manifest_that_can_be_read_but_not_parsed_is_no_list(data, copy):
    (copy / MANIFEST).write_bytes(data)
    assert about(copy, MANIFEST) == ["is not a sorted list of digests and paths"]


def test_a_manifest_in_another_order_is_no_list(copy):
    reversed_lines(copy)
    assert about(copy, MANIFEST) == ["is not a sorted list of digests and paths"]


def test_a_manifest_is_missing_or_too_large(copy, monkeypatch):
    size = (copy / MANIFEST).stat().st_size
    for module in (store_files, partial_view):
        monkeypatch.setattr(module, "MOST_WHOLE", size)
    assert about(copy, MANIFEST) == []
    for module in (store_files, partial_view):
        monkeypatch.setattr(module, "MOST_WHOLE", size - 1)
    assert about(copy, MANIFEST) == [f"has {size} bytes, but at most {size - 1} are allowed"]
    (copy / MANIFEST).unlink()
    assert about(copy, MANIFEST) == ["is missing, although the store was finished"]


@pytest.mark.parametrize(
    ("edit", "problems"),
    [
        (without("  README.md"), ["does not list README.md (1 in total)"]),
        (without("  index.parquet"), ["lists all files except index.parquet, which contains the root digest"]),
        (without("  index.parquet", "  README.md"), ["does not list README.md, index.parquet (2 in total)"]),
        (with_line("a.txt"), ["lists a.txt (1 in total), which is not part of the store"]),
        (with_digest("E_a/c/1/0"), ["lists a different SHA-256 for E_a/c/1/0 from the ledger's"]),
    ],
)
def test_the_manifest_lists_the_files_of_the_store_with_the_digests_of_the_ledger(edit, problems, copy):
    edit(copy)
    assert about(copy, MANIFEST) == problems


def test_a_manifest_without_the_index_and_with_another_file_has_two_problems(copy):
    without("  index.parquet")(copy)
    with_line("a.txt")(copy)
    assert about(copy, MANIFEST) == [
        "does not list index.parquet (1 in total)",
        "lists a.txt (1 in total), which is not part of the store",
    ]


def test_four_files_that_do_not_belong_are_counted_and_three_are_named_in_order(copy):
    for key in ("d", "b", "a", "c"):
        with_line(key)(copy)
    assert about(copy, MANIFEST) == ["lists a, b, c (4 in total), which is not part of the store"]


def test_rows_that_differ_are_listed_in_ascending_order(tmp_path):
    """Each image is a segment of its own, so rows 0, 4 and 8; a set has them in the order 0, 8, 4."""
    store = write_store(tmp_path / "s.zarr", range(3), segments=(1, 1, 1))
    table = parquet.read_table(store / "index.parquet")
    rows = [row | {"width": 7 if row["row"] else row["width"]} for row in table.to_pylist()]
    write_table(type(table).from_pylist(rows, table.schema), store / "index.parquet")
    found = [problem.rows for problem in verify(store, quick=True).problems if "ledger" in problem.what]
    assert found == [(4, 8)]


def test_rows_of_only_one_of_two_tables_differ():
    """The rows of failures that are no images, which have no number, are not named."""
    schema = pa.schema([("row", pa.int64()), ("reason", pa.string())])

    def table(**reasons: str | None) -> object:
        rows = [{"row": None if key == "_" else int(key[1:]), "reason": text} for key, text in reasons.items()]
        return pa.Table.from_pylist(rows, schema)

    one = table(r70="x", r3="y", r4="z", _="a pipe")
    assert small_file_checks._unequal(one, table(r3="y", r4="other", r65="x", _="a link")) == (4, 65, 70)
    assert small_file_checks._unequal(one, one) == ()


@pytest.mark.parametrize("field", ["crc32c", "sha256"])
def test_rows_whose_bytes_do_not_match_their_record_are_listed(field, copy):
    """Ledger, index and manifest agree with one another; only the data can show it."""

    def edit(images: list[dict]) -> None:
        for image in images:
            if image["row"] in (4, 6, 9):
                image[field] = image[field] ^ 1 if field == "crc32c" else "0" * 64

    edit_images(copy, edit)
    rewrite_manifest(copy)
    what = {
        "crc32c": "the row's checksum does not match its chunks",
        "sha256": "the row's digest does not match its bytes",
    }[field]
    problems = [problem for problem in verify(copy).problems if "the row's" in problem.what]
    assert [(problem.key, problem.shard, problem.rows, problem.what, problem.kind) for problem in problems] == [
        ("ledger/000001.json", 1, (4, 6), what, "record"),
        ("ledger/000002.json", 2, (9,), what, "record"),
    ]


@pytest.mark.parametrize("name", ["index.parquet", "failures.parquet"])
def test_without_a_manifest_a_lost_record_is_not_restored_from_a_table_with_problems(name, copy):
    """The table no longer says the same as the records that are left, or as the files that could not be read."""
    (copy / MANIFEST).unlink()
    (copy / "ledger/000001.json").unlink()
    table = parquet.read_table(copy / name)
    if name == "index.parquet":
        rows = [row | {"width": 7 if row["row"] == 3 else row["width"]} for row in table.to_pylist()]
    else:
        rows = [row | {"reason": "a link" if row["row"] is None else row["reason"]} for row in table.to_pylist()]
    write_table(type(table).from_pylist(rows, table.schema), copy / name)
    problems = {problem.key for problem in verify(copy, quick=True).problems}
    assert {MANIFEST, name, "ledger/000001.json"} <= problems
    report = repair(copy)
    assert "ledger/000001.json" not in report.restored
    assert not (copy / "ledger/000001.json").exists()


def test_a_header_that_can_be_read_only_later_is_reported_as_it_was(copy, monkeypatch):
    """Another command replaces the header while this one reads it."""
    (copy / "index.parquet").write_bytes(b"")
    header = (copy / "zarr.json").read_bytes()
    (copy / "zarr.json").write_bytes(b"{")
    real = partial_view.read_header

    def read_then_replace(files: object) -> object:
        try:
            return real(files)
        finally:
            (copy / "zarr.json").write_bytes(header)

    monkeypatch.setattr(partial_view, "read_header", read_then_replace)
    with pytest.raises(StoreError, match=r"zarr\.json of .* is damaged.* cannot be read either"):
        verify(copy, quick=True)
    assert {problem.key for problem in verify(copy, quick=True).problems} >= {"index.parquet"}


@pytest.fixture(scope="module")
def signed(whole, tmp_path_factory) -> Path:
    store = Path(shutil.copytree(whole, tmp_path_factory.mktemp("signed") / "s.zarr"))
    sign(store, KEY)
    return store


def no_edit(store: Path) -> None:
    pass


def damaged_signature(store: Path) -> None:
    (store / "signature.json").write_text("{}")


@pytest.mark.parametrize("edit", [no_edit, damaged_signature, without("  signature.json")])
def test_signing_again_puts_right_what_is_wrong_with_a_signature(edit, signed, tmp_path):
    store = Path(shutil.copytree(signed, tmp_path / "s.zarr"))
    before = contents(store)
    edit(store)
    sign(store, KEY, quick=True)
    assert contents(store) == before


@pytest.mark.parametrize(
    "edit",
    [
        without("  README.md"),
        without("  README.md", "  signature.json"),
        with_line("a.txt"),
        with_digest("E_a/c/1/0"),
        with_digest("ledger/000001.json"),
        reversed_lines,
    ],
    ids=["unlisted", "unlisted with the signature", "foreign", "digest of a shard", "digest of a record", "order"],
)
def test_a_store_whose_manifest_is_wrong_is_not_signed(edit, signed, tmp_path):
    """Signing rewrites the manifest, which would hide the damage."""
    store = Path(shutil.copytree(signed, tmp_path / "s.zarr"))
    edit(store)
    before = contents(store)
    with pytest.raises(StoreError, match=rf"cannot be signed: {MANIFEST}"):
        sign(store, KEY, quick=True)
    assert contents(store) == before


def test_a_damaged_signature_is_named_by_its_own_file(signed, tmp_path):
    store = Path(shutil.copytree(signed, tmp_path / "s.zarr"))
    fields = json.loads((store / "signature.json").read_text())
    (store / "signature.json").write_text(json.dumps(fields | {"statement": "{}"}))
    assert {problem.key for problem in verify(store, quick=True).problems} == {"signature.json"}

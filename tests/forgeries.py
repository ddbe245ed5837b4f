"""Changing what a finished store says, with every digest but the root digest put right, as somebody else could."""

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

VERSION_1 = Path(__file__).parent / "teacher_cache" / "store" / "stores" / "version_1.zip"
"""A store that the last writer of format 1 (commit 30ade98) made of six images: float16, a shard in float32, one image
failed, one file unreadable, private, with title and licence; compressed, so not as `pack` writes it."""


def write_table(table: Any, path: Path) -> None:
    """As stores write theirs."""
    pq.write_table(table, path, compression="zstd", write_page_checksum=True, use_dictionary=False)


def version_1_store(folder: Path) -> Path:
    """Write the store of format 1 to a folder."""
    with zipfile.ZipFile(VERSION_1) as archive:
        archive.extractall(folder)
    return folder


def rewrite_manifest(store: Path) -> None:
    """List every file with the digest that it has."""
    manifest = store / "manifest-sha256.txt"
    keys = sorted(
        file.relative_to(store).as_posix() for file in store.rglob("*") if file.is_file() and file != manifest
    )
    lines = [f"{hashlib.sha256((store / key).read_bytes()).hexdigest()}  {key}\n" for key in keys]
    manifest.write_text("".join(lines))


def edit_header(store: Path, **fields: Any) -> None:
    """Change the header in both of its places."""
    file = store / "zarr.json"
    group = json.loads(file.read_text())
    group["attributes"]["medalign"] |= fields
    file.write_text(json.dumps(group, indent=2))
    edit_summary(store, lambda summary: summary["header"].update(fields))


def edit_summary(store: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the index says about the whole store."""
    table = pq.read_table(store / "index.parquet")
    summary = json.loads(table.schema.metadata[b"medalign"])
    change(summary)
    write_table(table.replace_schema_metadata({"medalign": json.dumps(summary)}), store / "index.parquet")


def edit_images(store: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change what the ledger says of the images that have a row, all of them in row order; the index follows."""
    files = sorted((store / "ledger").glob("0*.json"))
    records = [json.loads(file.read_text()) for file in files]
    images = [image for record in records for image in record["images"]]
    change(images)
    for file, record in zip(files, records, strict=True):
        lines = "".join(f"{image['image_hash']} {image['sha256']}\n" for image in record["images"])
        record["content_sha256"] = hashlib.sha256(lines.encode()).hexdigest()
        file.write_text(json.dumps(record))
    table = pq.read_table(store / "index.parquet")
    write_table(type(table).from_pylist(images, table.schema), store / "index.parquet")


def edit_failures(store: Path, reason: str) -> None:
    """Give another reason why images failed, in ledger and table."""
    for file in (store / "ledger").glob("0*.json"):
        record = json.loads(file.read_text())
        for failure in record["failures"]:
            failure["reason"] = reason
        file.write_text(json.dumps(record))
    table = pq.read_table(store / "failures.parquet")
    rows = [{**row, "reason": reason if row["row"] is not None else row["reason"]} for row in table.to_pylist()]
    write_table(type(table).from_pylist(rows, table.schema), store / "failures.parquet")


def exchange_pixel_hashes(store: Path) -> None:
    """The first two images get each other's pixel hash: who looks by pixels gets the other's targets."""

    def exchange(images: list[dict[str, Any]]) -> None:
        images[0]["pixel_hash"], images[1]["pixel_hash"] = images[1]["pixel_hash"], images[0]["pixel_hash"]

    edit_images(store, exchange)


def set_images(**fields: Any) -> Callable[[Path], None]:
    """Give every image these values."""

    def forge(store: Path) -> None:
        edit_images(store, lambda images: [image.update(fields) for image in images] and None)

    return forge


def set_header(**fields: Any) -> Callable[[Path], None]:
    return lambda store: edit_header(store, **fields)


def forget_unreadable(store: Path) -> None:
    """No file was unreadable any more."""
    (store / "ledger/unreadable.json").unlink()
    table = pq.read_table(store / "failures.parquet")
    rows = [row for row in table.to_pylist() if row["row"] is not None]
    write_table(type(table).from_pylist(rows, table.schema), store / "failures.parquet")


FORGERIES: dict[str, Callable[[Path], None]] = {
    "exchanged pixel hashes": exchange_pixel_hashes,
    "private to public": set_header(data_use="public"),
    "another title": set_header(title="Public chests"),
    "no title": set_header(title=None),
    "another licence": set_header(licence="CC0-1.0"),
    "a smaller tolerance": set_header(tolerance=1e-9),
    "sizes": set_images(width=1),
    "recorded max|dS|": set_images(max_abs_dS=2.0),
    "reasons": lambda store: edit_failures(store, "never mind"),
    "no unreadable files": forget_unreadable,
}
"""What format 1 let pass behind a sound root digest."""


def forge(store: Path, name: str) -> Path:
    """Make one of the forgeries, with a manifest that fits; the root digest stays the claimed one."""
    FORGERIES[name](store)
    rewrite_manifest(store)
    return store


def digest(lines: list[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def root_by_the_page(store: Path) -> str:
    """The root digest of format 2, as docs/store-format.md says, from the Parquet files and zarr.json alone."""
    header = json.loads((store / "zarr.json").read_text())["attributes"]["medalign"]
    table = pq.read_table(store / "index.parquet")
    summary = json.loads(table.schema.metadata[b"medalign"])
    failures = pq.read_table(store / "failures.parquet").to_pylist()
    images = table.to_pylist()
    about = {name: header[name] for name in ("data_use", "licence", "title", "tolerance")}
    about |= {"format_version": 2, "fingerprint": summary["fingerprint"], "images": len(images)}
    about |= {"failures": sum(failure["row"] is not None for failure in failures)}
    about |= {"unreadable": len(failures) - about["failures"]}
    rows = []
    for image in images:
        profile = summary["shards"][image["row"] // header["shard_rows"]]["profile"]
        change = struct.pack(">f", image["max_abs_dS"]).hex()
        place = (image["image_hash"], image["pixel_hash"], image["width"], image["height"], profile, change)
        rows.append(" ".join(map(str, [*place, image["sha256"]])))
    reasons = [(failure["image_hash"], json.dumps(failure["reason"])) for failure in failures]
    return digest(
        [
            json.dumps(about, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
            *sorted(rows),
            *sorted(f"{image} failed {reason}" for image, reason in reasons if image is not None),
            *sorted(f"unreadable {reason}" for image, reason in reasons if image is None),
        ]
    )


def root_of_version_1(store: Path) -> str:
    """The same of format 1."""
    table = pq.read_table(store / "index.parquet")
    failures = pq.read_table(store / "failures.parquet").to_pylist()
    lines = sorted(f"{image['image_hash']} {image['sha256']}" for image in table.to_pylist())
    failed = sorted(f"{failure['image_hash']} failed" for failure in failures if failure["image_hash"])
    return digest([json.loads(table.schema.metadata[b"medalign"])["fingerprint"], *lines, *failed])

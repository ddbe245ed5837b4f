"""Files of a store that have each other's names, as after a restored backup or a sync that mixed up two of them."""

from pathlib import Path

from ..access.store_files import LocalFiles
from ..file_names import GROUP_FILE, LEDGER_FOLDER, MANIFEST_FILE
from ..filesystem.durable_files import write_atomically
from ..filesystem.filesystem_errors import reading
from ..records.digest_list import file_digest, parse_manifest, stored_files
from ..records.ledger import UNREADABLE_KEY
from ..store_errors import DamagedStore
from ..store_problem import Kind, Problem


def exchanged_files(store: Path) -> dict[str, str]:
    """Find small files whose bytes have another file's name, according to the manifest: file -> file with its bytes.

    All files of an exchange are in the result. Two files may be the only sources of each other
    (`ledger/unreadable.json` and `failures.parquet`, `zarr.json` and `index.parquet`), so only a swap restores them.
    Shards are ignored, since they can be recomputed.
    """
    try:
        listed = parse_manifest(LocalFiles(store).read(MANIFEST_FILE), MANIFEST_FILE)
    except (OSError, DamagedStore):
        return {}
    keys = [key for key in stored_files(store) if key in listed and "/c/" not in key and not (store / key).is_symlink()]
    with reading(store):
        digests = {key: file_digest(store / key) for key in keys}
    misplaced = {digest: key for key, digest in digests.items() if digest != listed[key]}
    exchanged = {
        key: misplaced[listed[key]] for key in keys if digests[key] != listed[key] and listed[key] in misplaced
    }
    return {key: other for key, other in exchanged.items() if other in exchanged}


def put_back(store: Path) -> tuple[Problem, ...]:
    """Swap exchanged files back; returns the problems that this fixes.

    After a crash in between, one of two files is back in place, and the other follows from it.
    """
    exchanged = exchanged_files(store)
    contents = {key: (store / other).read_bytes() for key, other in exchanged.items()}
    for key, data in contents.items():
        write_atomically(store / key, data)
    return tuple(
        Problem(kind=_kind(key), key=key, what=f"its bytes are in {other}, according to {MANIFEST_FILE}")
        for key, other in exchanged.items()
    )


def _kind(key: str) -> Kind:
    if key == GROUP_FILE:
        return "header"
    if Path(key).name == GROUP_FILE:
        return "metadata"
    return "record" if key.startswith(f"{LEDGER_FOLDER}/") and key != UNREADABLE_KEY else "derived"

"""Files of a store that lie under one another's names: a restored backup, or a sync that crossed two of them."""

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
    """Small files that are not what the manifest lists, while another one is: file -> the one that has its bytes.

    Both are in the result, since each lies where the other belongs. Two of them may be the only sources of each
    other (`ledger/unreadable.json` and `failures.parquet`, `zarr.json` and `index.parquet`), so nothing but putting
    them back restores them. Shards are not looked at: they can be computed again.
    """
    try:
        listed = parse_manifest(LocalFiles(store).read(MANIFEST_FILE), MANIFEST_FILE)
    except (OSError, DamagedStore):
        return {}
    keys = [key for key in stored_files(store) if key in listed and "/c/" not in key and not (store / key).is_symlink()]
    with reading(store):
        digests = {key: file_digest(store / key) for key in keys}
    strayed = {digest: key for key, digest in digests.items() if digest != listed[key]}
    found = {key: strayed[listed[key]] for key in keys if digests[key] != listed[key] and listed[key] in strayed}
    return {key: place for key, place in found.items() if place in found}


def put_back(store: Path) -> tuple[Problem, ...]:
    """Give files that lie under one another's names their own; returns what was wrong.

    After a crash in between one of two is back, and the other follows from it.
    """
    exchanged = exchanged_files(store)
    contents = {key: (store / place).read_bytes() for key, place in exchanged.items()}
    for key, data in contents.items():
        write_atomically(store / key, data)
    return tuple(
        Problem(kind=_kind(key), key=key, what=f"its bytes lie in {place}, as {MANIFEST_FILE} says")
        for key, place in exchanged.items()
    )


def _kind(key: str) -> Kind:
    if key == GROUP_FILE:
        return "header"
    if Path(key).name == GROUP_FILE:
        return "metadata"
    return "record" if key.startswith(f"{LEDGER_FOLDER}/") and key != UNREADABLE_KEY else "derived"

"""A packed store back into a folder. Packed files come from strangers: nothing in them is believed."""

import hashlib
import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...atomic import leftover_notes, new_folder
from ...errors import InputError, StoreError
from ...progress import Progress
from ..store.files import folder_mode, make_folders, new_file, open_to_all, write_atomically
from ..store.format import MANIFEST_FILE, DataUse
from ..store.manifest import parse_manifest
from ..store.reader import open_store
from .files import check_names, wrong_digest

_LARGEST_MANIFEST: Final = 16 << 20
"""Bytes: 100,000 files; a store has fewer than 1,000."""
_BLOCK: Final = 1 << 20
_ENCRYPTED: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpackReport:
    """What was unpacked."""

    file: Path
    out: Path
    data_use: DataUse
    files: int
    bytes: int
    root_sha256: str


def unpack(file: Path, out: Path, *, progress: Progress) -> UnpackReport:
    """Write the store in `file` to the new folder `out`, which appears when every digest is right.

    Raises:
        InputError: `file` is absent, no ZIP, or holds what `pack` does not write (links, compression, other names).
        StoreError: a digest is wrong, what it holds is no finished store, or `out` exists.
    """
    if os.path.lexists(out):
        raise StoreError(f"{out} exists: give another folder, or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    for note in leftover_notes(out):
        progress.note(note)
    try:
        with new_folder(out, 0o700) as building, file.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            digests = _checked_list(archive, file)
            progress.start("unpacking", len(digests))
            size = 0
            for key, digest in digests.items():
                size += _extract(archive, file, key, digest, building / key)
                progress.advance()
            manifest = archive.read(MANIFEST_FILE)
            write_atomically(building / MANIFEST_FILE, manifest)
            store = open_store(building)
            if folder_mode(store.header.data_use) is None:
                open_to_all(building)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {file}") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise InputError(f"{file} is no packed store: {error}") from error
    return UnpackReport(
        file=file,
        out=out,
        data_use=store.header.data_use,
        files=len(digests) + 1,
        bytes=size + len(manifest),
        root_sha256=store.root_sha256,
    )


def _checked_list(archive: zipfile.ZipFile, file: Path) -> dict[str, str]:
    """The manifest of a packed store whose members are exactly what it lists, plain files of bounded size."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if names.count(MANIFEST_FILE) != 1 or archive.getinfo(MANIFEST_FILE).file_size > _LARGEST_MANIFEST:
        raise InputError(f"{file} is no packed store: it does not hold one {MANIFEST_FILE}")
    for member in members:
        if problem := _oddity(member):
            raise InputError(f"{file} is no packed store: {member.filename[:200]!r} {problem}")
    if sum(member.file_size for member in members) > file.stat().st_size:
        raise InputError(f"{file} is no packed store: its members overlap")
    digests = parse_manifest(archive.read(MANIFEST_FILE), f"{MANIFEST_FILE} of {file}")
    check_names(digests, str(file))
    if sorted(names) != sorted([*digests, MANIFEST_FILE]):
        odd = sorted(set(names) ^ {*digests, MANIFEST_FILE}) or sorted(
            {name for name in names if names.count(name) > 1}
        )
        raise InputError(
            f"{file} is no packed store: its members are not those of its manifest, first: {odd[0][:200]!r}"
        )
    return digests


def _oddity(member: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or member.is_dir():
        return "is no plain file"
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        return "is compressed"
    return "is encrypted" if member.flag_bits & _ENCRYPTED else ""


def _extract(archive: zipfile.ZipFile, file: Path, key: str, expected: str, target: Path) -> int:
    """Write one member and compare its digest; returns its length."""
    make_folders(target.parent)
    digest, size = hashlib.sha256(), 0
    with archive.open(key) as source, new_file(target) as out:
        while block := source.read(_BLOCK):
            digest.update(block)
            size += out.write(block)
        if digest.hexdigest() != expected:
            raise wrong_digest(f"{file}", key, digest.hexdigest(), expected)
    return size

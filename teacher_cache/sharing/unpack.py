"""Unpacking a packed store into a folder. Packed files are untrusted, so everything in them is checked."""

import hashlib
import io
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...atomic import leftover_notes, new_folder
from ...choices import DataUse
from ...errors import InputError, MedalignError
from ...plain_text import as_typed, quoted_error
from ...progress import Progress
from ...suggestions import spelling
from ..store.access.store_files import open_regular
from ..store.checking.unaltered import require_unaltered
from ..store.file_names import MANIFEST_FILE
from ..store.filesystem.disk_space import require_space
from ..store.filesystem.durable_files import folder_mode, make_folders, new_file, open_to_all, write_atomically
from ..store.records.digest_list import parse_manifest
from ..store.store_errors import DamagedStore, TargetInUse
from .listed_files import check_names, wrong_digest

_LARGEST_MANIFEST: Final = 16 << 20
"""Maximum size of the manifest in bytes: 100,000 files; a store has fewer than 1,000."""
_BLOCK: Final = 1 << 20
_ENCRYPTED: Final = 1
_LARGEST_LIST: Final = 16 << 20
"""Maximum size in bytes of the member list at the end of a ZIP, which is read at once: some 100,000 members."""


_FIRST_MEMBER: Final = b"E_a/"
"""How the name of the first member of a packed store begins: members are sorted, and every store has E_a."""
_LOCAL_HEADER: Final = 30
"""Bytes before the name of the first member (APPNOTE 4.3.7)."""


class NotPacked(InputError):
    """A file is not what `pack` writes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpackReport:
    """Result of unpacking."""

    file: Path
    out: Path
    data_use: DataUse
    files: int
    bytes_on_disk: int
    claimed_root_sha256: str
    """Computed from header, index and ledger; `verify` compares it with the rows."""


def unpack(file: Path, out: Path, *, progress: Progress) -> UnpackReport:
    """Write the store in `file` to the new folder `out`, which appears when every digest matches.

    Raises:
        InputError: `file` is missing or a folder.
        NotPacked: `file` is not a ZIP, or contains what `pack` never writes (links, compression, other
            names).
        DamagedStore: `file` begins or is listed as a packed store, but its bytes have changed or are missing.
        StoreError: a digest is wrong, the content is not a finished store, `out` exists, or its disk is too full.
    """
    if file.is_dir():
        copy = f"`medalign store pull {as_typed(file)} --out STORE.zarr`"
        raise InputError(f"{file} is a folder, not a packed store; {copy} copies a store from a folder")
    if os.path.lexists(out):
        raise TargetInUse(f"{out} exists: choose another folder, or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    for note in leftover_notes(out):
        progress.note(note)
    with new_folder(out, 0o700) as building, _open_archive(file) as archive:
        digests = _checked_list(archive, file)
        require_space(out.parent, sum(member.file_size for member in archive.infolist()), f"{out}")
        progress.start("unpacking", len(digests))
        size = 0
        for key, digest in digests.items():
            size += _extract(archive, file, key, digest, building / key)
            progress.advance()
        manifest = _read_manifest(archive, file)
        write_atomically(building / MANIFEST_FILE, manifest)
        store = require_unaltered(building)
        if folder_mode(store.header.data_use) is None:
            open_to_all(building)
    return UnpackReport(
        file=file,
        out=out,
        data_use=store.header.data_use,
        files=len(digests) + 1,
        bytes_on_disk=size + len(manifest),
        claimed_root_sha256=store.root_sha256,
    )


@contextmanager
def _open_archive(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        opened = open_regular(file)
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist{spelling(file, Path.is_file)}") from error
    with _BoundedReads(opened.detach()) as bounded:
        with _damaged_zip(file, is_packed=_begins_as_packed(bounded)):
            archive = zipfile.ZipFile(bounded)
        with archive:
            yield archive


def _begins_as_packed(file: io.BufferedReader) -> bool:
    """Whether the first member of a ZIP, whose list of members may be missing, is one of a packed store."""
    begin = file.read(_LOCAL_HEADER + len(_FIRST_MEMBER))
    file.seek(0)
    return begin.startswith(b"PK\x03\x04") and begin.endswith(_FIRST_MEMBER)


class _BoundedReads(io.BufferedReader):
    """A file with a limit on the size of one read, whatever lengths its content claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(0, os.fstat(self.fileno()).st_size - self.tell())
        if size > _LARGEST_LIST:
            raise ValueError(f"its list of members has {size} bytes, but at most {_LARGEST_LIST} are allowed")
        return super().read(size)


@contextmanager
def _damaged_zip(file: Path, *, is_packed: bool = True) -> Iterator[None]:
    """Turn any exception that zipfile raises for a damaged ZIP into ours; it has no common class for them.

    Raises:
        DamagedStore: `file` is known to be a packed store.
        NotPacked: It may be any file.
    """
    try:
        yield
    except (MedalignError, MemoryError):
        raise
    except Exception as error:
        if is_packed:
            raise DamagedStore(f"the packed store {file} is damaged: {quoted_error(error)}") from error
        raise NotPacked(f"{file} is not a packed store: {quoted_error(error)}") from error


def _read_manifest(archive: zipfile.ZipFile, file: Path) -> bytes:
    with _damaged_zip(file):
        return archive.read(MANIFEST_FILE)


def _checked_list(archive: zipfile.ZipFile, file: Path) -> dict[str, str]:
    """Read the manifest; check that the members are exactly the listed files, and regular files of bounded size."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if names.count(MANIFEST_FILE) != 1 or archive.getinfo(MANIFEST_FILE).file_size > _LARGEST_MANIFEST:
        raise NotPacked(f"{file} is not a packed store: it does not contain exactly one {MANIFEST_FILE}")
    for member in members:
        if problem := _member_problem(member):
            raise NotPacked(f"{file} is not a packed store: {member.filename[:200]!r} {problem}")
    if min(member.header_offset for member in members) < 0 or (
        sum(member.file_size for member in members) > file.stat().st_size
    ):
        raise NotPacked(f"{file} is not a packed store: its members overlap")
    digests = parse_manifest(_read_manifest(archive, file), f"{MANIFEST_FILE} of {file}")
    check_names(digests, str(file))
    if sorted(names) != sorted([*digests, MANIFEST_FILE]):
        repeated = (name for name, count in Counter(names).items() if count > 1)
        differences = sorted(set(names) ^ {*digests, MANIFEST_FILE}) or sorted(repeated)
        raise NotPacked(
            f"{file} is not a packed store: its members do not match its manifest; first: {differences[0][:200]!r}"
        )
    return digests


def _member_problem(member: zipfile.ZipInfo) -> str:
    if not member.filename:
        return "has no name"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or member.is_dir():
        return "is not a regular file"
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        return "is compressed"
    return "is encrypted" if member.flag_bits & _ENCRYPTED else ""


def _extract(archive: zipfile.ZipFile, file: Path, key: str, expected: str, target: Path) -> int:
    """Write one member and compare its digest; returns its size."""
    make_folders(target.parent)
    digest, size = hashlib.sha256(), 0
    with _opened(archive, file, key) as source, new_file(target) as out:
        while block := _next_block(source, file):
            digest.update(block)
            size += out.write(block)
        if digest.hexdigest() != expected:
            raise wrong_digest(f"{file}", key, digest.hexdigest(), expected)
    return size


def _opened(archive: zipfile.ZipFile, file: Path, key: str) -> zipfile.ZipExtFile:
    with _damaged_zip(file):
        member = archive.open(key)
    assert isinstance(member, zipfile.ZipExtFile), "opened for reading"
    return member


def _next_block(source: zipfile.ZipExtFile, file: Path) -> bytes:
    with _damaged_zip(file):
        return source.read(_BLOCK)

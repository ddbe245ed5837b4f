"""The sharing commands: select images, copy stores, and report."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...choices import DataUse
from ...errors import InputError, SettingsError
from ...plain_text import counted, quoted_error
from ...progress import Progress
from ...teacher_cache.sharing.merge import merge
from ...teacher_cache.sharing.pack import pack
from ...teacher_cache.sharing.pull import pull
from ...teacher_cache.sharing.push import push
from ...teacher_cache.sharing.subset import Wanted, subset
from ...teacher_cache.sharing.unpack import NotPacked, unpack
from ...teacher_cache.store.filesystem.filesystem_errors import accessing
from ...teacher_cache.store.format.keyed_hashes import given_key
from ...teacher_cache.store.store_errors import DamagedStore
from ..data.manifest import Manifest

_KEPT = "Finished files are kept if the command can continue from them."
_IS_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch


@dataclass(frozen=True, kw_only=True, slots=True)
class SharingReport:
    """The report of a sharing command; its fields are those of the report in teacher_cache.sharing."""

    values: dict[str, Any]

    def summary(self) -> dict[str, object]:
        """The values for JSON."""
        return {name: _plain(value) for name, value in self.values.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The images to select from a store; exactly one of the first two fields."""

    manifest: Path | None = None
    hashes: Path | None = None
    """Text file with one image hash (SHA-256 of the file, hex) per line."""
    hash_key: Path | None = None
    """Key file of a store with keyed hashes."""

    def read(self) -> list[Wanted]:
        """The images, each once.

        Raises:
            SettingsError: Not exactly one source is given.
            InputError: It cannot be read, or contains something else.
        """
        if (self.manifest is None) == (self.hashes is None):
            raise SettingsError("select the images with exactly one of --manifest FILE or --hashes FILE")
        if self.manifest is not None:
            pairs = Manifest.read(self.manifest).images().select("image_hash", "pixel_hash")
            return [Wanted(image_hash=image, pixel_hash=pixel) for image, pixel in pairs.iter_rows()]
        assert self.hashes is not None
        return [Wanted(image_hash=digest) for digest in read_hashes(self.hashes)]


def read_hashes(path: Path) -> list[str]:
    """Read image hashes from a text file, one per line; empty lines and a byte order mark are ignored.

    Raises:
        InputError: The file cannot be read, has no hash, or a line is not a SHA-256 in hex.
    """
    try:
        lines = [line.strip().lower() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the image hashes in {path}: {quoted_error(error)}") from error
    for number, line in enumerate(lines, start=1):
        if line and not _IS_DIGEST(line):
            raise InputError(f"line {number} of {path} is not a SHA-256 in hex: {line[:80]!r}")
    if not any(lines):
        raise InputError(f"{path} has no image hash: write one SHA-256 in hex per line")
    return list(dict.fromkeys(filter(None, lines)))


def subset_store(source: str, out: Path, selection: Selection, progress: Progress) -> SharingReport:
    """Copy some images of a store, at a path or a URL, to a new store."""
    key = given_key(selection.hash_key)
    wanted = selection.read()
    with accessing(out, _KEPT):
        return _report(subset(source, out, wanted, hash_key=key, progress=progress))


def merge_stores(sources: Sequence[str], out: Path, progress: Progress) -> SharingReport:
    """Merge stores with the same fingerprint, and note repeated images with different rows."""
    with accessing(out, _KEPT):
        report = merge(sources, out, progress=progress)
    if report.differing:
        subject = counted(len(report.differing), "image has a different row", "images have different rows")
        progress.note(
            f"{subject} in a later store (other machines or libraries round differently); the first store's rows are "
            "used"
        )
    return _report(report)


def pack_store(store: Path, out: Path, allow: DataUse | None, progress: Progress) -> SharingReport:
    """Pack a store into one file."""
    with accessing(out, _KEPT):
        return _report(pack(store, out, allow=allow, progress=progress))


def unpack_store(file: Path, out: Path, progress: Progress) -> SharingReport:
    """Unpack a store from one file."""
    remedy = (
        f"Nothing was written to {out}. Compare the SHA-256 of {file} with the one that `medalign store pack` printed "
        "for its sender: if they differ, copy or download the file again; if not, ask the sender to run `medalign "
        "store verify` on the store and to pack it again"
    )
    with accessing(out, _KEPT), _adding(remedy):
        return _report(unpack(file, out, progress=progress))


def push_store(store: Path, destination: str, allow: DataUse | None, progress: Progress) -> SharingReport:
    """Upload a store to a URL or a folder."""
    with accessing(store, _KEPT):
        return _report(push(store, destination, allow=allow, progress=progress))


def pull_store(source: str, out: Path, selection: Selection | None, progress: Progress) -> SharingReport:
    """Download a whole store, or some of its images."""
    if selection is not None:
        return subset_store(source, out, selection, progress)
    remedy = (
        f"Nothing was written to {out}. Run the command again, in case the transfer was at fault; if it fails in the "
        f"same way, {source} itself is damaged: ask its authors to run `medalign store verify` and `medalign store "
        "repair` on the original, and to publish it again"
    )
    with accessing(out, _KEPT), _adding(remedy):
        return _report(pull(source, out, progress=progress))


@contextmanager
def _adding(remedy: str) -> Iterator[None]:
    """Add what to do to the error of a damaged source, which this user usually cannot repair."""
    try:
        yield
    except (DamagedStore, NotPacked) as error:
        raise type(error)(f"{error}. {remedy}") from error


def _plain(value: Any) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _report(report: Any) -> SharingReport:
    return SharingReport(values=asdict(report))

"""`medalign data check --hashes`: compare every image file with its hash in the manifest."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError
from ...path_checks import is_absent
from ...plain_text import counted
from ...progress import Progress
from ...teacher_cache.images import UnreadableImage, decode_image, image_hash, read_image_bytes
from ...teacher_cache.workers.cores import usable_cores
from .image_hashing import NAMED_AT_MOST
from .manifest import Manifest
from .mask_hashes import mask_hashes

Kind = Literal["same", "saved_again", "swapped", "changed", "unreadable"]
"""saved_again: other bytes with the same pixels. swapped: the bytes or pixels of another file of the manifest."""

_REMEDIES: dict[Kind, str] = {
    "swapped": "{files} contain{s} another file of the manifest: files were renamed or swapped. Restore the original "
    "names, or pass the correct folder with --root.",
    "changed": "{files} contain{s} something that is not in the manifest. Restore the original files.",
    "unreadable": "{files} cannot be read. Make them readable.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedFile:
    """One image file, compared with the manifest."""

    image: str
    """Name of the image or mask in the manifest."""
    kind: Kind
    expected: str
    """SHA-256 in the manifest."""
    actual: str | None
    """SHA-256 of the file; `None` if it cannot be read."""
    holds: str | None = None
    """If it was swapped, the name of the file whose content it has."""
    reason: str | None = None
    """Why it cannot be read."""

    def __str__(self) -> str:
        if self.actual is None:
            return f"{self.image}: {self.reason}"
        other = "no file of the manifest" if self.holds is None else self.holds
        return f"{self.image}: SHA-256 {self.actual[:12]}..., in the manifest {self.expected[:12]}...; contains {other}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileCheck:
    """All existing image and mask files of a manifest, compared with its hashes."""

    root: Path
    counts: dict[Kind, int]
    wrong: tuple[CheckedFile, ...]
    """Files with other content, in the manifest's order."""

    def summary(self) -> dict[str, Any]:
        return {
            "hashes": {"checked": sum(self.counts.values()), **self.counts},
            "wrong_files": [asdict(file) for file in self.wrong[:NAMED_AT_MOST]],
        }

    def raise_for_wrong(self, missing: Sequence[str] = ()) -> None:
        """Raise InputError if a file has other content; `missing` lists files that do not exist."""
        if not self.wrong:
            return
        lines = [f"  {file}" for file in self.wrong[:NAMED_AT_MOST]]
        if len(self.wrong) > NAMED_AT_MOST:
            lines.append(f"  and {len(self.wrong) - NAMED_AT_MOST} more")
        remedies = [
            text.format(files=counted(count, "file"), s="s" if count == 1 else "")
            for kind, text in _REMEDIES.items()
            if (count := self.counts[kind])
        ]
        if missing:
            remedies.append(f"{counted(len(missing), 'file is', 'files are')} missing, first {missing[0]}.")
        listed = "\n".join([*lines, *remedies])
        raise InputError(
            f"{len(self.wrong)} of {sum(self.counts.values())} files differ from the manifest (root {self.root}):\n"
            f"{listed}\nIf the new files are correct, import the data set again with `medalign data import`; earlier "
            "stores, runs and results describe the old images."
        )


def check_files(manifest: Manifest, progress: Progress, workers: int | None = None) -> FileCheck:
    """Read and hash every image and mask file of a manifest on `workers` threads (default: one per usable core).

    An image is decoded only if its bytes differ from the manifest; masks are compared only by their bytes. Missing
    files are skipped: `check_manifest` counts them.
    """
    masks = mask_hashes(manifest.frame)
    every = [*manifest.image_files().select("image", "image_hash", "pixel_hash").iter_rows()]
    every += [(mask, digest, None) for mask, digest in masks.items()]
    rows = [row for row in every if not is_absent(manifest.path_of(row[0]))]
    known = {digest: mask for mask, digest in reversed(masks.items())} | _names(manifest)

    def check(row: tuple[str, str, str | None]) -> CheckedFile:
        return _check_file(manifest.path_of(row[0]), *row, known)

    progress.start("checking hashes", len(rows))
    counts, wrong = Counter[Kind](), []
    with ThreadPoolExecutor(max_workers=workers or usable_cores()) as pool:
        for checked in pool.map(check, rows):
            counts[checked.kind] += 1
            if checked.kind not in ("same", "saved_again"):
                wrong.append(checked)
            progress.advance()
    kinds: tuple[Kind, ...] = ("same", "saved_again", "swapped", "changed", "unreadable")
    return FileCheck(root=manifest.root, counts={kind: counts[kind] for kind in kinds}, wrong=tuple(wrong))


def _names(manifest: Manifest) -> dict[str, str]:
    """Image hash and pixel hash -> the first name with it in the manifest."""
    names: dict[str, str] = {}
    for name, digest, pixels in manifest.images().select("image", "image_hash", "pixel_hash").iter_rows():
        for key in filter(None, (digest, pixels)):
            names.setdefault(key, name)
    return names


def _check_file(path: Path, image: str, expected: str, pixels: str | None, known: dict[str, str]) -> CheckedFile:
    try:
        data = read_image_bytes(path)
    except UnreadableImage as error:
        return CheckedFile(image=image, kind="unreadable", expected=expected, actual=None, reason=error.reason)
    actual = image_hash(data)
    if actual == expected:
        return CheckedFile(image=image, kind="same", expected=expected, actual=actual)
    found = [actual, *_pixel_hashes(data)]
    if pixels in found:
        return CheckedFile(image=image, kind="saved_again", expected=expected, actual=actual)
    holds = next((known[digest] for digest in found if digest in known), None)
    kind: Kind = "changed" if holds is None else "swapped"
    return CheckedFile(image=image, kind=kind, expected=expected, actual=actual, holds=holds)


def _pixel_hashes(data: bytes) -> Iterator[str]:
    """The hash of the decoded pixels; empty if they cannot be decoded."""
    try:
        yield decode_image(data).pixel_hash
    except UnreadableImage:
        return

"""Adding images to a finished store: they are extracted into a store beside it, which it then adopts."""

import os
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...atomic import beside, sync_folder
from ...errors import InputError, StoreError
from ...progress import Progress, Silent
from ..store.access.store_files import LocalFiles
from ..store.checking.partial_view import StoreView
from ..store.checking.small_file_checks import expected_files
from ..store.checking.unaltered import require_unaltered
from ..store.file_names import FAILURES_FILE, MANIFEST_FILE
from ..store.filesystem.durable_files import remove_leftovers
from ..store.filesystem.locks import RunLock
from ..store.filesystem.plain_files import raise_for_kind
from ..store.format.header import StoreHeader
from ..store.format.keyed_hashes import HashKey
from ..store.reading.contents import was_finished
from ..store.reading.root_digest import version_note
from ..store.records.digest_list import stored_files
from ..store.records.index import read_columns, read_summary
from ..store.records.ledger import read_unreadable
from ..store.records.zarr_metadata import read_header
from ..store.signatures.signature import is_signed, removed_note
from ..store.store_errors import UnfinishedStore
from ..store.writing.adoption import adopt, replace_unreadable, side_of
from ..store.writing.writer import StoreWriter
from ..teachers.forward import Teacher
from ..teachers.recipe import TeacherRecipe
from ..workers.engines import Crew
from ..workers.prefetch import ImageSource
from .extraction_options import ExtractionOptions
from .report import ExtractionReport, finished_outcome, shares
from .stage_one import StoreRun
from .store_plan import distinct_sources, recorded_plan

__all__ = ["extend"]

_RETIRED = re.compile(r"\..*(\.medalign-[0-9a-f]{16}\.adopted)", re.DOTALL)


def extend(
    teacher: Teacher | TeacherRecipe,
    images: Sequence[ImageSource],
    store: Path,
    *,
    unreadable: Sequence[str] = (),
    retry_failed: bool = False,
    hash_key: HashKey | None = None,
    crew: Crew | None = None,
    progress: Progress | None = None,
) -> ExtractionReport:
    """Add those of `images` that a finished store does not know yet; all settings are those of the store.

    With `retry_failed`, images that failed before are computed again too, and `unreadable` replaces the reasons
    recorded so far instead of being added to them. The store can be read until the last step. After a crash the
    same call continues; what was computed is kept.

    Raises:
        StoreError: the store is unfinished, of another teacher or another key, being written, does not have its root
            digest, or the disk is full.
        InputError: an extension that was interrupted was planned for images that are not given now.
    """
    side = side_of(store)
    raise_for_kind(side)
    header = read_header(store)
    run = StoreRun(teacher, side, _options(header, hash_key, crew or Crew()), progress)
    run.check(store)
    with RunLock(store), run.errors():
        _sweep(side)
        remove_leftovers(store)
        planned = recorded_plan(store, header := read_header(store))
        if (store / MANIFEST_FILE).is_file():  # else an extension was interrupted while it became part of the store
            require_unaltered(store)
        was_signed = is_signed(store)
        chosen = _chosen(store, planned, side, distinct_sources(images), run, retry_failed)
        if not chosen:
            report = _nothing_to_do(store, side, unreadable, retry_failed, progress or Silent())
            _tell(store, header, was_signed, progress or Silent())
            return report
        run.begin(chosen, _reasons(store, unreadable, retry_failed), may_exist=True)
        report = run.fill(chosen)
        _require_own(side)
        root = adopt(store, planned, side, recorded_plan(side, read_header(side)))
        _retire(side)
        _tell(store, header, was_signed, progress or Silent())
    return _report(report, store, root)


def _tell(store: Path, header: StoreHeader, was_signed: bool, progress: Progress) -> None:
    """What an extension does not change, and what it costs."""
    if header.format_version == 1:
        progress.note(version_note(str(store)))
    if was_signed and not is_signed(store):
        progress.note(removed_note(store))


def _report(report: ExtractionReport, store: Path, root: str) -> ExtractionReport:
    """What was done beside the store, and what the store holds now."""
    held = finished_outcome(store)
    return replace(
        report,
        out=store,
        failures=held.failures,
        unreadable=held.unreadable,
        profiles=held.profiles,
        bytes=held.bytes,
        root_sha256=root,
    )


def _options(header: StoreHeader, hash_key: HashKey | None, crew: Crew) -> ExtractionOptions:
    """All settings of a store, but for how images are named: that follows from the key at hand."""
    return ExtractionOptions(
        grid=header.grid,
        geometry=header.geometry,
        jpeg_scale=header.jpeg_scale,
        hash_key=hash_key,
        crew=crew,
        data_use=header.data_use,
        profile=header.profile,
        tolerance=header.tolerance,
        batch_size=header.batch_size,
        threads=header.threads,
        shard_rows=header.shard_rows,
        title=header.title,
        licence=header.licence,
    )


def _chosen(
    store: Path,
    planned: Sequence[str],
    side: Path,
    sources: Sequence[ImageSource],
    run: StoreRun,
    retry_failed: bool,
) -> list[ImageSource]:
    """What an extension that was begun is about, and of the images given those that the store does not know.

    Raises:
        UnfinishedStore: nothing was begun, and the store itself is not finished.
    """
    known = set(planned)
    if side.exists():
        known -= set(recorded_plan(side, read_header(side)))
        retry_failed = False
    elif not (store / MANIFEST_FILE).is_file():
        _require_once_finished(store)
    if retry_failed:
        known -= set(
            read_columns(LocalFiles(store), FAILURES_FILE, ["image_hash"], read_header(store)).column(0).to_pylist()
        )
    return [source for source in sources if run.name(source.image_hash) not in known]


def _require_once_finished(store: Path) -> None:
    """Check that a store without a manifest lacks nothing else: closing it was interrupted, and is repeated.

    Raises:
        UnfinishedStore: it was never finished, or a shard is missing.
    """
    writer = StoreWriter(store)
    if was_finished(LocalFiles(store)) and not writer.missing(range(writer.header.shards)):
        return
    raise UnfinishedStore(
        f"{store} is unfinished: complete it with `medalign teacher extract --resume` before adding images"
    )


def _reasons(store: Path, unreadable: Sequence[str], retry_failed: bool) -> list[str]:
    """Reasons of unreadable files that the extended store will list."""
    return [*([] if retry_failed else read_unreadable(store)), *unreadable]


def _nothing_to_do(
    store: Path, side: Path, unreadable: Sequence[str], retry_failed: bool, progress: Progress
) -> ExtractionReport:
    """Record other reasons of unreadable files, and close the store where it is not.

    Raises:
        InputError: an extension was begun for other images.
    """
    if side.exists():
        raise InputError(
            f"{store} was being extended by images that are not among those given: repeat that "
            "`medalign teacher extend` with its own manifest or folder"
        )
    progress.note(f"{store} knows all of these images already: nothing is added")
    if retry_failed and sorted(unreadable) != read_unreadable(store):
        (store / MANIFEST_FILE).unlink(missing_ok=True)  # the root digest changes
        sync_folder(store)
        replace_unreadable(store, unreadable)
    if not (store / MANIFEST_FILE).is_file():
        StoreWriter(store).finish()
    held = finished_outcome(store)
    return ExtractionReport(
        out=store,
        images=0,
        failures=held.failures,
        unreadable=held.unreadable,
        profiles=held.profiles,
        bytes=held.bytes,
        root_sha256=read_summary(LocalFiles(store)).root_sha256,
        narrow_images=0,
        shards_done=0,
        shards_reused=0,
        shards_redone=0,
        images_done=0,
        workers=0,
        seconds=0.0,
        **shares([]),
    )


def _require_own(side: Path) -> None:
    """Check that the extension, which is removed once it is adopted, holds nothing of anybody else.

    Raises:
        StoreError: it does.
    """
    view = StoreView(LocalFiles(side))
    if strange := sorted({*stored_files(side)} - {*expected_files(view)}):
        raise StoreError(
            f"{side / strange[0]} is no part of this extension, whose folder is removed when it has become part of the "
            "store: move it away, then repeat the command"
        )


def _retire(side: Path) -> None:
    """Remove a store that was adopted; renamed first, so that no crash leaves half a store under its name."""
    side.replace(beside(side, ".", f".medalign-{secrets.token_hex(8)}.adopted"))
    sync_folder(side.parent)
    _sweep(side)


def _sweep(side: Path) -> None:
    """Remove what a crash left of retiring."""
    for entry in os.scandir(side.parent):
        retired = _RETIRED.fullmatch(entry.name)
        ours = retired and entry.name == beside(side, ".", retired[1]).name
        if ours and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)

"""Adding images to a finished store: they are extracted into a second store, which is then merged into the first."""

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
    """Add those `images` to a finished store that it does not have yet, with the store's own settings.

    With `retry_failed`, images that failed before are recomputed too, and `unreadable` replaces the reasons recorded so
    far instead of being added to them. The store can be read until the last step. After a crash, the same call
    continues and keeps the computed rows.

    Raises:
        StoreError: the store is unfinished, has another teacher or another key, is being written, does not match its
            root digest, or the disk is full.
        InputError: an interrupted extension was planned for images that are not in `images`.
    """
    side = side_of(store)
    raise_for_kind(side)
    header = read_header(store)
    run = StoreRun(teacher, side, _options(header, hash_key, crew or Crew()), progress)
    run.check(store)
    with RunLock(store), run.errors():
        _remove_remains(side)
        remove_leftovers(store)
        planned = recorded_plan(store, header := read_header(store))
        if (store / MANIFEST_FILE).is_file():  # otherwise merging an extension was interrupted
            require_unaltered(store)
        was_signed = is_signed(store)
        chosen = _select(store, planned, side, distinct_sources(images), run, retry_failed)
        if not chosen:
            report = _nothing_to_do(store, side, unreadable, retry_failed, progress or Silent())
            _report_notes(store, header, was_signed, progress or Silent())
            return report
        run.begin(chosen, _reasons(store, unreadable, retry_failed), may_exist=True)
        report = run.fill(chosen)
        _require_no_other_files(side)
        root = adopt(store, planned, side, recorded_plan(side, read_header(side)))
        _remove_adopted(side)
        _report_notes(store, header, was_signed, progress or Silent())
    return _report(report, store, root)


def _report_notes(store: Path, header: StoreHeader, was_signed: bool, progress: Progress) -> None:
    """Report that the format stays the same, and that a signature was removed."""
    if header.format_version == 1:
        progress.note(version_note(str(store)))
    if was_signed and not is_signed(store):
        progress.note(removed_note(store))


def _report(report: ExtractionReport, store: Path, root: str) -> ExtractionReport:
    """The report of the extension run, with the facts about the whole store."""
    outcome = finished_outcome(store)
    return replace(
        report,
        out=store,
        failures=outcome.failures,
        unreadable=outcome.unreadable,
        profiles=outcome.profiles,
        bytes=outcome.bytes,
        root_sha256=root,
    )


def _options(header: StoreHeader, hash_key: HashKey | None, crew: Crew) -> ExtractionOptions:
    """The settings of a store; only the kind of image hashes follows from the given key."""
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
        license=header.licence,
    )


def _select(
    store: Path,
    planned: Sequence[str],
    side: Path,
    sources: Sequence[ImageSource],
    run: StoreRun,
    retry_failed: bool,
) -> list[ImageSource]:
    """The images to extract: those of an interrupted extension, and those that the store does not have.

    Raises:
        UnfinishedStore: there is no interrupted extension, and the store itself is unfinished.
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
    """Check that a store without a manifest is complete otherwise, so that finishing it again is sufficient.

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
    """Reasons for unreadable files that the extended store will list."""
    return [*([] if retry_failed else read_unreadable(store)), *unreadable]


def _nothing_to_do(
    store: Path, side: Path, unreadable: Sequence[str], retry_failed: bool, progress: Progress
) -> ExtractionReport:
    """Update the reasons for unreadable files, and finish the store if it is unfinished.

    Raises:
        InputError: there is an interrupted extension for other images.
    """
    if side.exists():
        raise InputError(
            f"an interrupted extension of {store} has images that are not among the given ones: run that "
            "`medalign store extend` again with its own manifest or folder"
        )
    progress.note(f"{store} already has all of these images: nothing was added")
    if retry_failed and sorted(unreadable) != read_unreadable(store):
        (store / MANIFEST_FILE).unlink(missing_ok=True)  # the root digest changes
        sync_folder(store)
        replace_unreadable(store, unreadable)
    if not (store / MANIFEST_FILE).is_file():
        StoreWriter(store).finish()
    outcome = finished_outcome(store)
    return ExtractionReport(
        out=store,
        grid=str(read_header(store).grid),
        images=0,
        failures=outcome.failures,
        unreadable=outcome.unreadable,
        profiles=outcome.profiles,
        bytes=outcome.bytes,
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


def _require_no_other_files(side: Path) -> None:
    """Check that the extension's folder, which will be removed, contains no other files.

    Raises:
        StoreError: it does.
    """
    view = StoreView(LocalFiles(side))
    if unexpected := sorted({*stored_files(side)} - {*expected_files(view)}):
        raise StoreError(
            f"{side / unexpected[0]} is not part of this extension, whose folder will be removed after it is merged "
            "into the store: move the file away, then run the command again"
        )


def _remove_adopted(side: Path) -> None:
    """Remove an adopted store; it is renamed first, so that a crash does not leave a partial store under its name."""
    side.replace(beside(side, ".", f".medalign-{secrets.token_hex(8)}.adopted"))
    sync_folder(side.parent)
    _remove_remains(side)


def _remove_remains(side: Path) -> None:
    """Remove the remains of `_remove_adopted` after a crash."""
    for entry in os.scandir(side.parent):
        retired = _RETIRED.fullmatch(entry.name)
        is_own = retired and entry.name == beside(side, ".", retired[1]).name
        if is_own and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)

"""`medalign teacher preview`: read a sample of a store's rows, and say what they look like."""

import math
import re
from pathlib import Path
from typing import Final

from ....choices import DataUse
from ....errors import InputError, SettingsError, StoreError
from ....plain_text import as_typed, counted
from ....progress import Progress
from ....teacher_cache.geometry.patch_grid import PatchGrid
from ....teacher_cache.sharing.data_use_gate import strictest
from ....teacher_cache.store import TeacherStore, open_store
from ....teacher_cache.store.filesystem.filesystem_errors import accessing
from ....teacher_cache.store.format.keyed_hashes import given_key
from ....teacher_cache.workers.cores import arithmetic_threads
from ...data.manifest import Manifest
from ...extraction.image_sources import check_image_request
from ...runs.answer_log import check_free
from ..output_places import check_output
from .image_fit import fit_images
from .preview_result import RECORD_FILE, PreviewRequest, StorePreview
from .preview_verdict import FEWEST_FITTED, judge_fit, judge_store
from .row_collection import CollectedRows, collect_rows
from .row_sample import draw_positions
from .sample_images import PreviewImages, find_images
from .wrong_images import find_wrong_rows, visible_exchanges

_CELL: Final = re.compile(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*")


def preview_store(request: PreviewRequest, progress: Progress) -> StorePreview:
    """Read a sample of rows, judge it, and write the report if `request.out` is given.

    Raises:
        SettingsError, InputError: An option is wrong, the images cannot be found, or `out` is in use.
        StoreError: It is not a store, is unfinished, its index is damaged, or the key is not that of the store.
    """
    key = given_key(request.hash_key)
    if request.images is not None:
        check_image_request(request.images)
    if request.out is not None:
        check_output(request.out, "--out")
        if (request.out / RECORD_FILE).is_file():
            raise InputError(f"{request.out} already contains a preview: pass another --out")
        check_free(request.out, resume=False, what="a preview")
    with accessing(Path(request.location)):
        store = open_store(request.location, key)
        _require_rows(store)
        patch = parse_patch(request.patch, store.header.grid)
        images = None
        if request.images is not None:
            images = PreviewImages(store, find_images(store, request.images, progress), key)
        first = [] if images is None else images.positions
        positions = draw_positions(store, request.rows, request.seed, first)
        with arithmetic_threads(1):  # many small products, for which threads only wait for each other
            rows = collect_rows(store, positions, images, progress)
            preview = _judged(store, request, rows, images, progress)
    if request.out is not None:
        from .preview_page import write_preview  # slow import: draws figures

        write_preview(preview, request.out, patch, progress)
    return preview


def _classes(request: PreviewRequest) -> list[DataUse]:
    """The data-use classes in the manifest of the images; none if there is no manifest."""
    if request.images is None or request.images.manifest is None:
        return []
    return [Manifest.read(request.images.manifest, request.images.root).data_use]


def _require_rows(store: TeacherStore) -> None:
    """Check that there is something to look at.

    Raises:
        StoreError: All images of the store failed.
    """
    if not len(store):
        failed = counted(len(store.failures) + len(store.unreadable), "image")
        raise StoreError(
            f"{store.location} has 0 rows ({failed} failed), so there is nothing to look at: `medalign store info "
            f"{as_typed(store.location)}` describes it, and `medalign store extend` adds images"
        )


def _judged(
    store: TeacherStore,
    request: PreviewRequest,
    rows: CollectedRows,
    images: PreviewImages | None,
    progress: Progress,
) -> StorePreview:
    fit, wrong, visible = None, [], math.nan
    if rows.row_cells is not None and rows.image_cells is not None and len(rows.compared) >= FEWEST_FITTED:
        fit = fit_images(rows.row_cells, rows.image_cells, request.seed, progress)
    fit_verdict = judge_fit(fit, len(rows.compared), asked=images is not None)
    if fit is not None and fit_verdict.state in ("fits", "weak"):
        wrong, visible = find_wrong_rows(fit.scores), visible_exchanges(fit.scores)
    is_random = images is None or len(images.positions) == len(store)
    verdict = judge_store(rows.summaries, len(store), rows.equal_rows, fit_verdict, wrong, visible, is_random)
    return StorePreview(
        store=store,
        request=request,
        data_use=strictest([store.header.data_use, *_classes(request)]),
        rows=rows,
        images=images,
        fit=fit,
        fit_verdict=fit_verdict,
        wrong=wrong,
        visible=visible,
        notes=() if images is None else tuple(images.notes()),
        verdict=verdict,
    )


def parse_patch(text: str | None, grid: PatchGrid) -> int | None:
    """The index of the cell ROW,COLUMN of a grid, counted from 0; None for None.

    Raises:
        SettingsError: It is not a cell of the grid.
    """
    if text is None:
        return None
    if found := _CELL.fullmatch(text):
        row, column = map(int, found.groups())
        if row < grid.rows and column < grid.columns:
            return row * grid.columns + column
    raise SettingsError(
        f"--patch must be ROW,COLUMN, from 0,0 to {grid.rows - 1},{grid.columns - 1} in a store with grid {grid}, "
        f"not {text!r}"
    )

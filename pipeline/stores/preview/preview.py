"""`medalign teacher preview`: read a sample of a store's rows, and say what they look like."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....errors import SettingsError, StoreError
from ....plain_text import as_typed
from ....progress import Progress
from ....teacher_cache.geometry.patch_grid import PatchGrid
from ....teacher_cache.store import TeacherStore, open_store
from ....teacher_cache.store.filesystem.filesystem_errors import accessing
from ....teacher_cache.store.format.keyed_hashes import given_key
from ....teacher_cache.workers.cores import arithmetic_threads
from ...extraction.image_sources import ImageRequest, check_image_request
from ...runs.answer_log import check_free
from ..output_places import check_output
from .image_fit import ImageFit, fit_images
from .odd_rows import count_flaws
from .preview_verdict import FEWEST_FITTED, FitVerdict, StoreVerdict, judge_fit, judge_store
from .row_collection import CollectedRows, collect_rows
from .row_sample import RowSummary, draw_positions
from .sample_images import PreviewImages, find_images
from .wrong_images import WrongRow, find_wrong_rows, visible_exchanges


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewRequest:
    """What to read of a store, and what to write."""

    location: str
    images: ImageRequest | None = None
    """None: no images are at hand."""
    rows: int = 200
    seed: int = 0
    patch: str | None = None
    """ROW,COLUMN of the cell whose similarity is drawn; None: the one with most attention."""
    hash_key: Path | None = None
    out: Path | None = None
    """Folder of the report; None: no report."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StorePreview:
    """What a sample of a store's rows looks like."""

    store: TeacherStore
    request: PreviewRequest
    rows: CollectedRows
    images: PreviewImages | None
    fit: ImageFit | None
    fit_verdict: FitVerdict
    wrong: list[WrongRow]
    """Indices count `rows.compared`."""
    visible: float
    """Share of pairs of rows whose exchange would be seen; nan if single rows were not judged."""
    notes: tuple[str, ...]
    """Sentences about images that could not be used."""
    verdict: StoreVerdict

    def oddities(self) -> list[tuple[RowSummary, str, str]]:
        """Row, what is odd about it, and details; in row order."""
        found: list[tuple[RowSummary, str, str]] = [
            (row, flaw.kind, flaw.detail) for row in self.rows.summaries for flaw in row.flaws
        ]
        found += [(self.rows.compared[wrong.index], wrong.kind, self._wrong_detail(wrong)) for wrong in self.wrong]
        return sorted(found, key=lambda oddity: oddity[0].row)

    def _wrong_detail(self, wrong: WrongRow) -> str:
        far = f"{wrong.distance:.1f} standard deviations"
        if wrong.other is None:
            return f"fits the average image better than its own, by {far}"
        other = self.rows.compared[wrong.other]
        if wrong.kind == "exchanged":
            return f"exchanged with row {other.row}: each fits the other's image better, by {far}"
        return f"fits the image of row {other.row} ({other.image_hash[:12]}) better than its own, by {far}"

    def summary(self) -> dict[str, object]:
        header, rows, fit = self.store.header, self.rows, self.fit
        return {
            "store": self.store.location,
            "looks": self.verdict.look,
            "verdict": list(self.verdict.sentences),
            "data_use": header.data_use,
            "teacher": header.teacher,
            "profile": header.profile,
            "grid": str(header.grid),
            "rows": len(self.store),
            "rows_read": len(rows.summaries),
            "rows_with_an_image": rows.with_image,
            "notes": list(self.notes),
            "median_norm": _quantiles([row.norm for row in rows.summaries]),
            "mean_cosine": _quantiles([row.cosine for row in rows.summaries]),
            "entropy_of_E_a": _quantiles([row.entropy for row in rows.summaries]),
            "largest_entropy": math.log(header.grid.patches),
            "images": {
                "state": self.fit_verdict.state,
                "rows_compared": len(rows.compared),
                "agreement_own": None if fit is None else fit.own,
                "agreement_other": None if fit is None else fit.other,
                "own_image_preferred": None if fit is None else fit.preferred,
                "p_value": None if fit is None else fit.p_value,
                "permutations": 0 if fit is None else len(fit.permuted),
                "visible_exchanges": self.visible,
            },
            "flaws": count_flaws(rows.summaries),
            "equal_rows": rows.equal_rows,
            "odd_rows": [
                {"row": row.row, "image_hash": row.image_hash, "what": what, "detail": detail}
                for row, what, detail in self.oddities()
            ],
            "report": None if self.request.out is None else str(self.request.out / "report.html"),
            "report_contains": report_notice(self.store) if self.request.out is not None else None,
        }

    def table(self) -> dict[str, object]:
        """The summary for people."""
        values = {name: value for name, value in self.summary().items() if name not in ("largest_entropy", "flaws")}
        return {name: value for name, value in values.items() if value is not None and value != []}

    def raise_for_broken(self) -> None:
        """Raise StoreError if the rows look broken."""
        if self.verdict.look == "broken":
            location = as_typed(self.store.location)
            raise StoreError(
                f"{self.store.location} looks broken. {' '.join(self.verdict.reasons)} Do not train with it: "
                f"`medalign store verify {location}` shows whether it arrived as it was written; if it did, tell its "
                f"authors. With the teacher's weights, `medalign store verify {location} --sample 8 --weights FILE "
                "--manifest MANIFEST` recomputes rows"
            )


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
        check_free(request.out, resume=False, what="a preview")
    with accessing(Path(request.location)):
        store = open_store(request.location, key)
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
        from .preview_page import write_preview

        write_preview(preview, request.out, patch, progress)
    return preview


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
    verdict = judge_store(rows.summaries, len(store), rows.equal_rows, fit_verdict, wrong, visible)
    return StorePreview(
        store=store,
        request=request,
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
    row, _, column = text.partition(",")
    if row.strip().isdecimal() and column.strip().isdecimal():
        place = int(row), int(column)
        if place[0] < grid.rows and place[1] < grid.columns:
            return place[0] * grid.columns + place[1]
    raise SettingsError(
        f"--patch must be ROW,COLUMN, from 0,0 to {grid.rows - 1},{grid.columns - 1} in a store with grid {grid}, "
        f"not {text!r}"
    )


def report_notice(store: TeacherStore) -> str:
    """What to know before a report of a store is shared."""
    return f"images or values computed from them; the same data-use class as the store: {store.header.data_use}"


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return {"least": None, "median": None, "largest": None}
    return {"least": min(finite), "median": float(np.median(finite)), "largest": max(finite)}

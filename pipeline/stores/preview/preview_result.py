"""What a preview was asked for, and what it found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ....choices import DataUse
from ....errors import StoreError
from ....plain_text import as_typed
from ....teacher_cache.store import TeacherStore
from ...extraction.image_sources import ImageRequest
from .image_fit import ImageFit
from .odd_rows import count_flaws
from .preview_verdict import FitVerdict, StoreVerdict
from .row_collection import CollectedRows
from .row_sample import RowSummary
from .sample_images import PreviewImages
from .wrong_images import WrongRow


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


RECORD_FILE: Final = "preview.json"
"""The summary in the folder of a report."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StorePreview:
    """What a sample of a store's rows looks like."""

    store: TeacherStore
    request: PreviewRequest
    data_use: DataUse
    """Strictest data-use class of the store and of the manifest with its images; a folder of images has none."""
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

    @property
    def rows_compared(self) -> int:
        """Number of rows that were compared with images; 0 if there are too few."""
        return 0 if self.fit is None else len(self.rows.compared)

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
            return f"matches the average image better than its own, by {far}"
        other = self.rows.compared[wrong.other]
        if wrong.kind == "exchanged":
            return f"exchanged with row {other.row}: each matches the other's image better, by {far}"
        return f"matches the image of row {other.row} ({other.image_hash[:12]}) better than its own, by {far}"

    def summary(self) -> dict[str, object]:
        header, rows, fit = self.store.header, self.rows, self.fit
        return {
            "store": self.store.location,
            "looks": self.verdict.look,
            "verdict": list(self.verdict.sentences),
            "title": header.title,
            "data_use": self.data_use,
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
                "rows_compared": self.rows_compared,
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
            "report_contains": report_notice(self) if self.request.out is not None else None,
        }

    def table(self) -> dict[str, object]:
        """The summary for people: only what was measured, in words."""
        summary = self.summary()
        kept = ("store", "looks", "verdict", "title", "data_use", "teacher", "profile", "grid", "rows", "rows_read")
        values = {name: summary[name] for name in kept}
        if self.images is not None:
            values |= {"rows_with_an_image": self.rows.with_image, "rows_compared": self.rows_compared}
        values |= {
            "median_norm_in_a_row_of_E_v": _in_words([row.norm for row in self.rows.summaries]),
            "mean_cosine_of_a_row": _in_words([row.cosine for row in self.rows.summaries]),
            "entropy_of_E_a_in_nats": _in_words([row.entropy for row in self.rows.summaries]),
            "notes": summary["notes"],
            "odd_rows": [f"row {row.row}: {kind}; {detail}" for row, kind, detail in self.oddities()],
            "report": summary["report"],
            "report_contains": summary["report_contains"],
        }
        return {name: value for name, value in values.items() if value not in (None, "", [])}

    def raise_for_broken(self) -> None:
        """Raise StoreError if the rows look broken."""
        if self.verdict.look == "broken":
            store = self.store.location
            raise StoreError(
                f"{store} looks broken. {' '.join(self.verdict.reasons)} Do not train with it: `medalign store verify "
                f"{as_typed(store)}` shows whether it arrived as it was written; if it did, tell its authors. With the "
                f"teacher's weights, `medalign store verify {as_typed(store)} --sample 8 --weights FILE --manifest "
                "MANIFEST` recomputes rows"
            )


def report_notice(preview: StorePreview) -> str:
    """What to know before a report of a store is shared."""
    return f"images or values computed from them; data-use class {preview.data_use}"


def _in_words(values: Sequence[float]) -> str:
    """Median and range; empty if no value is finite."""
    finite = [value for value in values if math.isfinite(value)]
    return f"median {np.median(finite):.4g}, from {min(finite):.4g} to {max(finite):.4g}" if finite else ""


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return {"least": None, "median": None, "largest": None}
    return {"least": min(finite), "median": float(np.median(finite)), "largest": max(finite)}

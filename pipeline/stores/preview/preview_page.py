"""The report of a preview: one page, its figures, and preview.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ....atomic import write_whole
from ....plain_text import as_typed, counted, without_secrets
from ....progress import Progress
from ....student.folders.model_folder import new_folder
from ....teacher_cache.store.filesystem.filesystem_errors import accessing
from ...reports.figures.figure import Figure
from ...reports.page import REPORT_FILE, Page, Section, State, Table, write_page
from ...terminal import as_json_text
from .drawn_rows import one_of_each_kind, over_other_images, random_rows, read_drawn
from .odd_rows import broken_rows
from .preview_figures import attention_figure, fit_figure, numbers_figure, similarity_figure
from .preview_result import RECORD_FILE, StorePreview, report_notice
from .row_sample import RowSummary

_LISTED: Final = 20
"""Lines of the table of odd rows."""
_NAMED: Final = 6
"""Rows in a line of it."""


def write_preview(preview: StorePreview, out: Path, patch: int | None, progress: Progress) -> None:
    """Write report.html, the figures with their data, and the summary as preview.json.

    Raises:
        MedalignError: A file cannot be written, or the store cannot be read.
    """
    with accessing(Path(preview.store.location)):
        page = preview_page(preview, patch)
    with new_folder(out) as folder:
        write_whole(folder / RECORD_FILE, as_json_text(preview.summary()) + "\n")
        write_page(folder / REPORT_FILE, page, progress)


def preview_page(preview: StorePreview, patch: int | None) -> Page:
    """The page of a preview; `patch` is the cell whose similarity is drawn."""
    sections = [*_detail_sections(preview), _odd_section(preview), _fit_section(preview)]
    sections += [*_row_sections(preview, patch), *_number_sections(preview), _next_section(preview)]
    return Page(
        title=f"What {_store_name(preview.store.location)} holds",
        lead=preview.verdict.lead,
        state=_state(preview),
        notice=f"It contains {report_notice(preview)}.",
        facts=_facts(preview),
        sections=sections,
    )


def _store_name(location: str) -> str:
    """The last part of a path or URL, without what is secret in it."""
    return Path(without_secrets(location)).name or Path(location).resolve().name


def _state(preview: StorePreview) -> State:
    if preview.verdict.look == "broken":
        return "bad"
    return "good" if preview.verdict.look == "sound" and preview.fit_verdict.state == "fits" else "neutral"


def _detail_sections(preview: StorePreview) -> list[Section]:
    """The sentences of the verdict that are neither in the lead nor in the section about images."""
    elsewhere = (*preview.verdict.reasons, preview.fit_verdict.sentence, preview.verdict.single_rows)
    sentences = [text for text in preview.verdict.sentences[1:] if text not in elsewhere]
    return [Section(title="Details of the verdict", text=sentences)] if sentences else []


def _row_sections(preview: StorePreview, patch: int | None) -> list[Section]:
    """Pictures of some rows that are not broken, if there are any."""
    every, header = preview.rows.summaries, preview.store.header
    broken = {row.position for row in broken_rows(every)}
    chosen = random_rows([row for row in every if row.position not in broken], preview.images, preview.request.seed)
    drawn = read_drawn(preview.store, chosen, preview.images, [f"entropy {row.entropy:.2f} nats" for row in chosen])
    if not drawn:
        return []
    why = "Bright cells have much attention, and should follow what the image shows."
    figures = [
        attention_figure(drawn, header, name="attention", title="Attention of the teacher, E_a", why=why),
        similarity_figure(drawn, header, patch),
    ]
    kind = "rows that are not broken" if broken else "rows that were read"
    return [Section(title="Some rows", text=[f"Drawn at random from the {kind}."], figures=figures)]


def _number_sections(preview: StorePreview) -> list[Section]:
    """Histograms of all rows, if any could be read."""
    if all(any(flaw.kind == "unreadable" for flaw in row.flaws) for row in preview.rows.summaries):
        return []
    figure = numbers_figure(preview.rows, preview.store.header)
    return [Section(title="All rows that were read", figures=[figure])]


def _odd_section(preview: StorePreview) -> Section:
    title, found = "Rows that look odd", preview.oddities()
    if not found:
        text = f"None of the {len(preview.rows.summaries):,} rows that were read looks odd on its own."
        return Section(title=title, text=[text])
    details: dict[int, list[str]] = {}
    for row, _, detail in found:
        details.setdefault(row.position, []).append(detail)
    table = _odd_table({row.position: row for row, _, _ in found}, details)
    redrawn = {preview.rows.compared[wrong.index].position for wrong in preview.wrong if wrong.other is not None}
    chosen = one_of_each_kind((row, what) for row, what, _ in found if row.position not in redrawn)
    notes = ["; ".join(details[row.position]) for row in chosen]
    drawn = read_drawn(preview.store, chosen, preview.images, notes)
    why = "The text above each picture says what is odd."
    figures = [*_other_image_figure(preview)]
    for name, heading, has_image in (("odd", "E_a of odd rows", True), ("odd-alone", "E_a, no image", False)):
        if group := [row for row in drawn if (row.image is not None) == has_image]:
            figures.append(attention_figure(group, preview.store.header, name=name, title=heading, why=why))
    return Section(title=title, tables=[table], figures=figures)


def _odd_table(rows: Mapping[int, RowSummary], details: Mapping[int, Sequence[str]]) -> Table:
    """One line for all rows with the same details."""
    alike: dict[str, list[RowSummary]] = {}
    for position, row in rows.items():
        alike.setdefault("; ".join(details[position]), []).append(row)
    lines = [
        [_first([str(row.row) for row in group]), _first([row.image_hash[:8] for row in group]), text]
        for text, group in alike.items()
    ]
    more = "" if len(lines) <= _LISTED else f", the first {_LISTED} of {len(lines):,} kinds"
    caption = f"{counted(len(rows), 'odd row')}{more}; {RECORD_FILE} lists all"
    return Table(columns=["rows", "images", "what is odd"], rows=lines[:_LISTED], caption=caption)


def _first(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED:,} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more


def _other_image_figure(preview: StorePreview) -> list[Figure]:
    """Rows over the images that they fit better than their own, if there are any."""
    compared = preview.rows.compared
    pairs = [(compared[wrong.index], compared[wrong.other]) for wrong in preview.wrong if wrong.other is not None]
    if preview.images is None or not pairs:
        return []
    rows = over_other_images(preview.store, pairs, preview.images)
    why = "Each row over its own image, and over the one that it matches better."
    title = "E_a over the image that matches better"
    return [attention_figure(rows, preview.store.header, name="other-images", title=title, why=why, columns=2)]


def _fit_section(preview: StorePreview) -> Section:
    figures = [] if preview.fit is None else [fit_figure(preview.fit, preview.request.seed)]
    text = [preview.fit_verdict.sentence, *filter(None, [preview.verdict.single_rows]), *preview.notes]
    if preview.fit is not None:
        text.append(
            "A linear fit predicts every row from brightness, contrast, edges and texture of the cells of its image. "
            "It is learned on other rows, needs no teacher, and finds nothing if rows and images do not match."
        )
    return Section(title="Do rows match their images?", text=text, figures=figures)


def _next_section(preview: StorePreview) -> Section:
    store = preview.store.location
    if preview.verdict.look == "broken":
        text = [
            "Do not train with this store. If this command finds it undamaged, it was written so: tell its authors."
        ]
        return Section(title="Next steps", text=text, commands=[f"medalign store verify {as_typed(store)}"])
    text = [
        "To prove that every byte is as its authors wrote it, compare its root digest with the one that they publish."
    ]
    commands = [f"medalign store verify {as_typed(store)} --expect-root DIGEST"]
    if preview.fit_verdict.state in ("not checked", "too few"):
        text.append("To check whether the rows belong to their images, pass at least 20 of the images.")
        commands.append(f"medalign teacher preview {as_typed(store)} --images FOLDER --out OTHER_FOLDER")
    return Section(title="Next steps", text=text, commands=commands)


def _facts(preview: StorePreview) -> dict[str, object]:
    store, header = preview.store, preview.store.header
    return {
        "store": store.location,
        "title": header.title,
        "data use": preview.data_use,
        "license": header.licence,
        "teacher": header.teacher,
        "profile": header.profile,
        "grid": str(header.grid),
        "geometry": header.geometry,
        "rows": len(store),
        "rows read": len(preview.rows.summaries),
        "rows with an image": None if preview.images is None else preview.rows.with_image,
        "images without a row (failures)": len(store.failures) + len(store.unreadable),
        "claimed root sha256": store.root_sha256,
        "seed": preview.request.seed,
    }

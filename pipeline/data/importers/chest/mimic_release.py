"""MIMIC-CXR-JPG as released by PhysioNet: a split table of images, and reports from the companion data set MIMIC-CXR.

Images are at `files/p10/p10000032/s50414267/DICOM_ID.jpg`. Reports are either in `mimic_cxr_sectioned.csv`, written by
the maintainers' create_section_files.py, or in text files, `files/p10/p10000032/s50414267.txt`.
"""

from collections.abc import Callable
from pathlib import Path

from .....errors import InputError
from .....path_checks import is_absent
from .....progress import Progress
from ..common import shortened
from ..records import check_records, keyed, read_table, text
from ..splits import split_name
from .mimic_sections import findings_of
from .studies import Study

SPLIT_TABLE = "mimic-cxr-2.*-split.csv*"
METADATA_TABLE = "mimic-cxr-2.*-metadata.csv*"
SECTION_TABLE = "mimic_cxr_sectioned.csv*"
REPORT_FOLDERS = ("files", "mimic-cxr-reports/files", "mimic-cxr-reports", "reports/files", "reports")
"""Folders where `mimic-cxr-reports.zip` may have been unpacked, relative to the split table's."""

FindingsOf = Callable[[str, str], str | None]
"""Subject and study -> the findings in the study's report; `None` if it has none."""


def read_release(table: Path, root: Path, progress: Progress) -> list[Study]:
    """One study per existing image of the official split, with the findings of its report.

    The split table lists the whole release; images that were not downloaded are counted in a note.

    Raises:
        InputError: Tables cannot be read, or there are no reports or no images.
    """
    folder = table.parent
    columns = ("dicom_id", "study_id", "subject_id", "split")
    table_lines = read_table(table, columns)
    check_records(table_lines, table, lambda line: None if all(map(line.get, columns)) else "an empty field", "lines")
    complete = [{column: line[column] or "" for column in columns} for line in table_lines]
    lines = _present(complete, root, progress)
    views = _views(folder, progress)
    findings = _findings(folder)
    return [
        Study(
            id=line["dicom_id"],
            images=(_image_name(line),),
            report=findings(line["subject_id"], line["study_id"]),
            split=split_name(line["split"]),
            view=views.get(line["dicom_id"]),
        )
        for line in lines
    ]


def _image_name(line: dict[str, str]) -> str:
    subject = line["subject_id"]
    return f"p{subject[:2]}/p{subject}/s{line['study_id']}/{line['dicom_id']}.jpg"


def _present(lines: list[dict[str, str]], root: Path, progress: Progress) -> list[dict[str, str]]:
    progress.start("checking images", len(lines))
    kept, missing = [], []
    for line in lines:
        name = _image_name(line)
        if is_absent(root / name):
            missing.append(name)
        else:
            kept.append(line)
        progress.advance()
    if not kept:
        raise InputError(f"none of the {len(lines)} images of the split exists under {root}, such as {missing[0]}")
    if missing:
        progress.note(f"{len(missing)} of {len(lines)} images of the split are missing; {shortened(missing)}")
    return kept


def _views(folder: Path, progress: Progress) -> dict[str, str]:
    """View position of every image; empty without the metadata table."""
    table = next(iter(sorted(folder.glob(METADATA_TABLE))), None)
    if table is None:
        progress.note(f"{folder} has no {METADATA_TABLE}: views are unknown")
        return {}
    lines = read_table(table, ("dicom_id", "ViewPosition"))
    views = {image: text(line["ViewPosition"]) for image, line in keyed(lines, "dicom_id", table).items()}
    return {image: view for image, view in views.items() if view is not None}


def _findings(folder: Path) -> FindingsOf:
    """The source of findings: the section table, else the reports.

    Raises:
        InputError: Neither exists.
    """
    table = next(iter(sorted(folder.glob(SECTION_TABLE))), None)
    if table is not None:
        lines = read_table(table, ("study", "findings"))
        by_study = keyed(lines, "study", table)
        sections = {study: " ".join((line["findings"] or "").split()) or None for study, line in by_study.items()}
        return lambda subject, study: sections.get(f"s{study}")
    roots = [folder / name for name in REPORT_FOLDERS if any((folder / name).glob("p1*/p*/s*.txt"))]
    if not roots:
        raise InputError(
            f"{folder} has no reports: looked for {SECTION_TABLE}, and for files such as p10/p10000032/s50414267.txt "
            f"in {', '.join(REPORT_FOLDERS)}; PhysioNet has them in mimic-cxr-reports.zip"
        )
    return lambda subject, study: _written_findings(roots[0] / f"p{subject[:2]}" / f"p{subject}" / f"s{study}.txt")


def _written_findings(path: Path) -> str | None:
    try:
        return findings_of(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error

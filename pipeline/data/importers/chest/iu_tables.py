"""IU X-Ray from Kaggle (two CSV tables) or OpenI (one XML file per report); neither publishes a split."""

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from .....errors import InputError
from .....plain_text import counted
from .....progress import Progress
from ...manifest import Manifest
from ..common import DEFAULT_SPLIT, ImportOptions, refuse, shortened
from ..image_folders.image_files import listed_images
from ..records import keyed, read_table
from .reports_and_questions import chest_manifest, image_folder
from .studies import Study

REPORTS = "indiana_reports.csv"
PROJECTIONS = "indiana_projections.csv"
KAGGLE_IMAGES = ("images/images_normalized", "images_normalized", "images")
OPENI_IMAGES = ("NLMCXR_png", "images", "png", ".")
XML_FOLDERS = ("ecgen-radiology", ".")


def import_iu_kaggle(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read the reports and projections of Kaggle's copy; questions about a study use its first frontal image.

    Raises:
        InputError: A table is missing or malformed, or images are missing.
    """
    folder = src if src.is_dir() else src.parent
    reports = keyed(read_table(folder / REPORTS, ("uid", "findings")), "uid", folder / REPORTS)
    shots = read_table(folder / PROJECTIONS, ("uid", "filename", "projection"))
    views: dict[str, list[tuple[bool, str, str | None]]] = defaultdict(list)
    for shot in shots:
        side = shot["projection"]
        views[str(shot["uid"])].append(((side or "").casefold() != "frontal", str(shot["filename"]), side))
    foreign = [uid for uid in views if uid not in reports]
    if foreign:
        raise InputError(
            f"{folder / PROJECTIONS}: {counted(len(foreign), 'uid is', 'uids are')} not in {REPORTS}; "
            f"{shortened(foreign)}"
        )
    studies = [
        Study(
            id=uid,
            images=tuple(name for _, name, _ in sorted(views[uid], key=lambda view: view[0])),
            report=" ".join((report["findings"] or "").split()) or None,
            split=DEFAULT_SPLIT,
            view=min(views[uid], key=lambda view: view[0])[2],
        )
        for uid, report in reports.items()
        if views.get(uid)
    ]
    _tell_imageless(len(reports) - len(studies), len(reports), progress)
    _tell_unsplit(studies, options, progress)
    root = image_folder(folder, KAGGLE_IMAGES, options)
    return chest_manifest("iu-xray", [folder / REPORTS], root, studies, [], "public", options, progress)


def import_iu_openi(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read OpenI's XML reports; images without a report become rows without a question.

    Raises:
        InputError: Reports are not valid XML, or images are missing.
    """
    folders = (src / name for name in XML_FOLDERS)
    files = next((found for folder in folders if (found := sorted(folder.glob("[!.]*.xml"), key=_number))), [])
    parsed = [_study(path) for path in files]
    refuse([problem for problem in parsed if isinstance(problem, str)], src, len(files), "reports")
    studies = [study for study in parsed if isinstance(study, Study)]
    _tell_imageless(len(files) - len(studies), len(files), progress)
    _tell_unsplit(studies, options, progress)
    root = image_folder(src, OPENI_IMAGES, options)
    named = {name for study in studies for name in study.images}
    rest = [name for name in listed_images(root) if name not in named]
    return chest_manifest("iu-xray", [files[0].parent], root, studies, [], "public", options, progress, unasked=rest)


def _study(path: Path) -> Study | str | None:
    """A report and its images; `None` if it has none, an error message if the file is not XML."""
    try:
        tree = ET.parse(path)
    except (OSError, ET.ParseError) as error:
        return f"{path.name} cannot be read as XML: {error}"
    images = [image.get("id") for image in tree.iter("parentImage")]
    written = [part.text or "" for part in tree.iter("AbstractText") if (part.get("Label") or "").upper() == "FINDINGS"]
    if not images:
        return None
    return Study(
        id=path.stem,
        images=tuple(dict.fromkeys(f"{image}.png" for image in images)),
        report=" ".join(" ".join(written).split()) or None,
        split=DEFAULT_SPLIT,
    )


def _number(path: Path) -> tuple[int, str]:
    return (int(path.stem) if path.stem.isdecimal() else 0, path.stem)


def _tell_imageless(count: int, total: int, progress: Progress) -> None:
    if count:
        progress.note(f"{count} of {total} reports have no image and are skipped")


def _tell_unsplit(studies: Sequence[Study], options: ImportOptions, progress: Progress) -> None:
    asked = sum(study.report is not None for study in studies)
    if asked:
        options.note_unsplit(counted(asked, "report is", "reports are"), progress)

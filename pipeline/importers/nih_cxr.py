"""NIH ChestX-ray14 (Wang et al. 2017): closed questions templated from its finding labels.

Each image gets one question about something it shows and one about something it does not. The latter is drawn so that
over the data set each finding is asked about with answer "yes" and "no" nearly equally often: the wording of a
question does not give its answer away.
"""

import csv
import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...progress import Progress
from ..manifest import Manifest, ManifestRow
from .common import IMAGE_SUFFIXES, ImageColumns, ImportOptions, first_existing, read_images, refuse, tell_result

TABLE_NAMES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "nih_starter_labels.csv")
NO_FINDING = "No Finding"
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
ARTICLES = {"Mass": "a mass", "Nodule": "a nodule", "Hernia": "a hernia"}
SPLIT_SHARES = (("test", 0.2), ("validation", 0.1))
"""Shares of patients; the rest is `train`."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One line of the label table."""

    stem: str
    labels: tuple[str, ...]
    patient: str


def import_nih_cxr(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Ask about one present and one absent finding per image; patients are disjoint between splits.

    Draws and split follow from `options.seed`; adding or removing patients moves nobody else to another split. The
    table's patient ids decide the split and are not written; the image files' own names start with the same number.

    Raises:
        InputError: the layout is another one, label lines are malformed, or images are missing.
    """
    table = first_existing(src, TABLE_NAMES, "label table")
    lines = _read_table(table)
    root = options.images or src
    found = _images_by_stem(root)
    names = {line.stem: found.get(line.stem, f"{line.stem}.png") for line in lines}
    images = read_images(root, names.values(), progress)
    unlabelled = sorted(set(found) - set(names))
    if unlabelled:
        progress.note(f"{len(unlabelled)} images have no line in {table.name} and are left out")
    weights = absence_weights(lines)
    rows = [
        row
        for line in lines
        if (image := images.columns.get(names[line.stem])) is not None
        for row in _questions(line, image, weights, options)
    ]
    manifest = Manifest.from_rows(rows, root, f"nih-cxr seed={options.seed}", images.unreadable)
    tell_result(manifest, progress)
    return manifest


def question_of(label: str) -> str:
    """The closed question whose answer is "yes" where the image carries the label."""
    if label == NO_FINDING:
        return "Is this chest radiograph free of abnormal findings?"
    finding = ARTICLES.get(label, label.replace("_", " ").lower())
    return f"Is there evidence of {finding} in this chest radiograph?"


def patient_split(patient: str, seed: int) -> str:
    """The split of a patient: a seeded hash, so adding or removing others moves nobody."""
    digest = hashlib.sha256(f"{seed} {patient}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    edge = 0.0
    for name, share in SPLIT_SHARES:
        edge += share
        if position < edge:
            return name
    return "train"


def absence_weights(lines: list[Labelled]) -> dict[str, float]:
    """How likely each label is to be asked about where it is absent.

    As often as it is expected to be asked about where it is present, spread over the images that lack it. A label
    that no image carries counts as if one did, so that it can be asked about too.
    """
    asked = dict.fromkeys((*FINDINGS, NO_FINDING), 0.0)
    carried = Counter(label for line in lines for label in line.labels)
    for line in lines:
        for label in line.labels:
            asked[label] += 1 / len(line.labels)
    return {label: max(asked[label], 1.0) / max(len(lines) - carried[label], 1) for label in asked}


def _questions(
    line: Labelled, image: ImageColumns, weights: dict[str, float], options: ImportOptions
) -> list[ManifestRow]:
    draw = random.Random(f"{options.seed} {line.stem}")
    present = draw.choice(line.labels)
    candidates = [label for label in (*FINDINGS, NO_FINDING) if label not in line.labels]
    absent = draw.choices(candidates, [weights[label] for label in candidates])[0]
    return [
        ManifestRow(
            question_id=f"{str(image['image_hash'])[:16]}-{label.lower().replace(' ', '-').replace('_', '-')}",
            question=question_of(label),
            answer=answer,
            answer_type="closed",
            split=options.split or patient_split(line.patient, options.seed),
            data_use=options.data_use or "public",
            question_type="presence",
            modality="X-ray",
            organ="chest",
            **image,
        )
        for label, answer in ((present, "yes"), (absent, "no"))
    ]


def _images_by_stem(root: Path) -> dict[str, str]:
    """Image files under the root by their stem: releases differ in folder (images_001/images) and suffix."""
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return {path.stem: path.relative_to(root).as_posix() for path in paths}


def _read_table(table: Path) -> list[Labelled]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            records = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is not a readable CSV: {error}") from error
    required = ("Image Index", "Finding Labels", "Patient ID")
    missing = [column for column in required if not records or column not in records[0]]
    if missing:
        raise InputError(f"{table} has no lines or lacks columns: {', '.join(missing)}")
    lines = [_labelled(record) for record in records]
    stems = Counter(line.stem for line in lines)
    problems = [
        f"line {number}: {problem}"
        for number, line in enumerate(lines, start=2)
        if (problem := _problem(line, stems)) is not None
    ]
    refuse(problems, table, len(records), "label lines")
    return lines


def _labelled(record: dict[str, str]) -> Labelled:
    labels = tuple((record["Finding Labels"] or "").split("|"))
    return Labelled(Path(record["Image Index"] or "").stem, labels, record["Patient ID"] or "")


def _problem(line: Labelled, stems: Counter[str]) -> str | None:
    if not line.stem or not line.patient:
        return "no image or no patient"
    if stems[line.stem] > 1:
        return f"image {line.stem} appears {stems[line.stem]} times"
    unknown = [label for label in line.labels if label != NO_FINDING and label not in FINDINGS]
    return f"unknown findings {', '.join(map(repr, unknown))}" if unknown else None

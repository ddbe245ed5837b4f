"""NIH ChestX-ray14 (Wang et al. 2017): closed questions generated from its finding labels.

Each image has one question about a present finding and one about an absent finding. The latter is drawn so that over
the data set "yes" and "no" are nearly equally frequent for each finding: the question does not reveal the answer.
"""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .....plain_text import counted
from .....progress import Progress
from ...manifest import Manifest, ManifestRow
from ...regions import Region
from ..common import ImageColumns, ImportOptions, finished, first_existing, read_images, refuse
from ..records import read_rows, read_table
from ..splits import drawn_split
from .nih_images import images_by_stem
from .nih_splits import official_splits

TABLE_NAMES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "nih_starter_labels.csv", "sample_labels.csv")
BOX_TABLE_NAMES = ("BBox_List_2017.csv", "bbox_12_original_1024_coords.csv")
BOX_FRAME = 1024
"""Side length, in pixels, of the original images to which boxes refer."""
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
BOX_NAMES = {"Infiltrate": "Infiltration"}
"""Names of findings in the box table -> in the label table, if they differ."""
ARTICLES = {"Mass": "a mass", "Nodule": "a nodule", "Hernia": "a hernia"}
SPLIT_SHARES = {"test": 0.2, "validation": 0.1, "train": 0.7}
"""Fractions of patients if the NIH's lists are missing."""
TRAIN_VAL_SHARES = {"validation": 1 / 8, "train": 7 / 8}
"""Fractions of the patients in `train_val_list.txt`, with the same ratio 1:7."""


@dataclass(frozen=True, slots=True)
class Labeled:
    """One line of the label table."""

    stem: str
    labels: tuple[str, ...]
    patient: str


def import_nih_cxr(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Ask about one present and one absent finding per image; patients are disjoint between splits.

    If the NIH's lists of images exist, they determine the test split, and the patients of `train_val_list.txt` are
    split at random into train and validation. Without the lists all three splits are random.

    The finding boxes of the release become the regions of their images, scaled to the size of the files.

    `options.seed` determines questions and splits; adding or removing patients does not change the split of others. The
    patient ids of the table determine the split and are not written; the image names start with the same number.

    Raises:
        InputError: The layout is unknown, lines of a table are malformed, or images are missing.
    """
    table = first_existing(src, TABLE_NAMES, "label table")
    lines = _read_table(table)
    root = options.images or src
    found = images_by_stem(root, {line.stem for line in lines}, progress)
    names = {line.stem: found.get(line.stem, f"{line.stem}.png") for line in lines}
    splits = _splits(src, lines, options, progress)
    images = read_images(root, names.values(), progress)
    unlabeled = sorted(set(found) - set(names))
    if unlabeled:
        progress.note(f"{counted(len(unlabeled), 'image has', 'images have')} no line in {table.name}: skipped")
    weights = absence_weights(lines)
    boxes = _read_boxes(src, names, progress)
    rows = [
        row
        for line in lines
        if (image := images.columns.get(names[line.stem])) is not None
        for row in _questions(
            line, image, splits[line.stem], _regions(boxes.get(line.stem, []), image), weights, options
        )
    ]
    return finished(rows, root, f"nih-cxr seed={options.seed}", images.unreadable, progress)


def _splits(src: Path, lines: list[Labeled], options: ImportOptions, progress: Progress) -> dict[str, str]:
    """The split of every image."""
    if options.split is not None:
        return {line.stem: options.split for line in lines}
    official = official_splits(src, [line.stem for line in lines], progress)
    shares = TRAIN_VAL_SHARES if official else SPLIT_SHARES
    return {
        line.stem: "test" if official.get(line.stem) == "test" else drawn_split(line.patient, shares, options.seed)
        for line in lines
    }


def question_of(label: str) -> str:
    """The closed question whose answer is "yes" if the image has the label."""
    if label == NO_FINDING:
        return "Is this chest radiograph free of abnormal findings?"
    finding = ARTICLES.get(label, label.replace("_", " ").lower())
    return f"Is there evidence of {finding} in this chest radiograph?"


def absence_weights(lines: list[Labeled]) -> dict[str, float]:
    """The sampling weight of each label among the labels that an image does not have.

    The weight is the expected number of questions about the label with answer "yes", divided by the number of images
    without it. A label that no image has counts as if one had it, so that it is sampled too.
    """
    asked = dict.fromkeys((*FINDINGS, NO_FINDING), 0.0)
    carried = Counter(label for line in lines for label in line.labels)
    for line in lines:
        for label in line.labels:
            asked[label] += 1 / len(line.labels)
    return {label: max(asked[label], 1.0) / max(len(lines) - carried[label], 1) for label in asked}


def _questions(
    line: Labeled,
    image: ImageColumns,
    split: str,
    regions: tuple[Region, ...],
    weights: dict[str, float],
    options: ImportOptions,
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
            split=split,
            data_use=options.data_use or "public",
            question_type="presence",
            modality="X-ray",
            organ="chest",
            regions=regions,
            **image,
        )
        for label, answer in ((present, "yes"), (absent, "no"))
    ]


def _regions(boxes: list[Region], image: ImageColumns) -> tuple[Region, ...]:
    """Boxes scaled to the pixels of the image file; none if it cannot be decoded."""
    width, height = image.get("width"), image.get("height")
    if width is None or height is None:
        return ()
    across, down = width / BOX_FRAME, height / BOX_FRAME
    scaled = []
    for region in boxes:
        assert region.box is not None
        x, y, w, h = region.box
        scaled.append(Region(name=region.name, box=(x * across, y * down, w * across, h * down)))
    return tuple(scaled)


def _read_boxes(src: Path, names: dict[str, str], progress: Progress) -> dict[str, list[Region]]:
    """Boxes by the stem of each image in the label table, in pixels of the original.

    The header `Bbox [x,y,w,h]` has commas inside a name, so columns are read by position.
    """
    table = next((src / name for name in BOX_TABLE_NAMES if (src / name).is_file()), None)
    if table is None:
        progress.note(f"{src} has no box table ({' or '.join(BOX_TABLE_NAMES)}): no image has regions")
        return {}
    records = [tuple(value or "" for value in row) for row in read_rows(table, 6)]
    found = {number: _box(record) for number, record in enumerate(records, start=2)}
    problems = [f"line {number}: {box}" for number, box in found.items() if isinstance(box, str)]
    refuse(problems, table, len(records), "box lines")
    boxes: dict[str, list[Region]] = {}
    for record, box in zip(records, found.values(), strict=True):
        if isinstance(box, Region):
            boxes.setdefault(Path(record[0]).stem, []).append(box)
    foreign = len(boxes.keys() - names.keys())
    if foreign:
        subject = counted(
            foreign,
            "image with boxes has no line in the label table and is skipped",
            "images with boxes have no line in the label table and are skipped",
        )
        progress.note(f"{subject}")
    return boxes


def _box(record: tuple[str, ...]) -> Region | str:
    """The region of one line, or what is wrong with it."""
    label = BOX_NAMES.get(record[1], record[1]) if len(record) > 1 else ""
    if label not in FINDINGS:
        return f"unknown finding {label!r}"
    try:
        x, y, width, height = map(float, record[2:6])
    except ValueError:
        return f"no valid x, y, width and height: {', '.join(record[2:])}"
    if not (width > 0 and height > 0):
        return f"a box of {width} x {height} pixels"
    return Region(name=label, box=(x, y, width, height))


def _read_table(table: Path) -> list[Labeled]:
    records = read_table(table, ("Image Index", "Finding Labels", "Patient ID"))
    lines = [_labeled(record) for record in records]
    stems = Counter(line.stem for line in lines)
    problems = [
        f"line {number}: {problem}"
        for number, line in enumerate(lines, start=2)
        if (problem := _problem(line, stems)) is not None
    ]
    refuse(problems, table, len(records), "label lines")
    return lines


def _labeled(record: dict[str, str | None]) -> Labeled:
    labels = tuple((record["Finding Labels"] or "").split("|"))
    return Labeled(Path(record["Image Index"] or "").stem, labels, record["Patient ID"] or "")


def _problem(line: Labeled, stems: Counter[str]) -> str | None:
    if not line.stem or not line.patient:
        return "no image or no patient"
    if stems[line.stem] > 1:
        return f"image {line.stem} appears {stems[line.stem]} times"
    unknown = [label for label in line.labels if label != NO_FINDING and label not in FINDINGS]
    return f"unknown findings {', '.join(map(repr, unknown))}" if unknown else None

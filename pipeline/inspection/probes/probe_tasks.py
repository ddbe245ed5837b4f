"""What probes predict: names of image patches, attributes of images, and answers that are classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from ....student.inspection.token_capture import StageTokens
from ....student.metrics.answer_words import strict_words
from ....teacher_cache.geometry.patch_grid import PatchGrid
from ..cell_labels import MOST_NAMES, UNNAMED, CellLabels
from ..inspected_images import InspectedImages

REGIONS, ANSWERS = "regions", "answers"
FEWEST_EXAMPLES = 10
"""A class with fewer images is left out."""
MOST_CLASSES = 6
"""Questions with more different answers are not classes."""
COVERED = 0.8
"""Smallest share of a question's answers in its classes."""
MOST_QUESTIONS = 6
_WAVES = 5
"""Cosines along each axis of the grid, for positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeTask:
    """One classification over the images of a sample. n examples."""

    name: str
    """`regions`, `organ`, `modality`, or the text of a question."""
    classes: tuple[str, ...]
    images: Int[np.ndarray, " examples"]
    """Index of the image of each example."""
    labels: Int[np.ndarray, " examples"]
    cells: Int[np.ndarray, " examples"] | None
    """Index of each example among the chosen patches of its image; `None`: an example is a whole image."""

    def features(self, stage: StageTokens) -> Float[np.ndarray, "examples features"]:
        """Patch tokens, or the pooled tokens of whole images."""
        values = stage.pooled[self.images] if self.cells is None else stage.tokens[self.images, self.cells]
        return np.asarray(values)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeFamily:
    """Tasks that are scored together, by the mean of their balanced accuracies."""

    name: str
    """`regions`, `organ`, `modality` or `answers`."""
    tasks: tuple[ProbeTask, ...]
    floor: str
    """The probe without image features: `position alone`, or `chance`."""

    @property
    def subject(self) -> str:
        """What the probes are about, as in a sentence."""
        return f"the {self.name}" if self.name in ("organ", "modality") else self.name


def probe_families(inspected: InspectedImages, cells: CellLabels) -> tuple[ProbeFamily, ...]:
    """Everything that can be probed, the most telling first: regions, else organ or modality; then answers."""
    families = []
    if cells.kind == "region":
        families.append(ProbeFamily(name=REGIONS, tasks=(_region_task(cells),), floor="position alone"))
    elif cells.kind is not None:
        families += _of_images(cells)
    answers = answer_tasks(inspected)
    if answers:
        families.append(ProbeFamily(name=ANSWERS, tasks=answers, floor="chance"))
    return tuple(families)


def position_features(cells: Int[np.ndarray, " examples"], grid: PatchGrid) -> Float[np.ndarray, "examples waves"]:
    """Smooth functions of a patch's place on the grid: products of the first five cosines along each axis.

    Every probe of patches gets them, because rotary embeddings and attention give each layer the position anyway; what
    a stage adds to them is information about the image.
    """
    along_rows = _cosines(cells // grid.columns, grid.rows)
    along_columns = _cosines(cells % grid.columns, grid.columns)
    products = along_rows[:, :, None] * along_columns[:, None, :]
    return np.asarray(products.reshape(len(cells), -1)[:, 1:])


def _cosines(places: np.ndarray, length: int) -> np.ndarray:
    waves = np.arange(min(_WAVES, length))
    return np.asarray(np.cos(np.pi * (places[:, None] + 0.5) * waves / length))


def _region_task(cells: CellLabels) -> ProbeTask:
    images, places = np.nonzero(cells.labels != UNNAMED)
    return ProbeTask(
        name=REGIONS, classes=cells.names, images=images, labels=cells.labels[images, places], cells=places
    )


def _of_images(cells: CellLabels) -> list[ProbeFamily]:
    assert cells.kind is not None
    task = _class_task(
        cells.kind, [cells.names[label] if label >= 0 else None for label in cells.labels[:, 0]], MOST_NAMES
    )
    return [] if task is None else [ProbeFamily(name=cells.kind, tasks=(task,), floor="chance")]


def answer_tasks(inspected: InspectedImages) -> tuple[ProbeTask, ...]:
    """Questions with the same text whose answers form 2 to 6 classes, each with enough images; the largest first."""
    index = {image: place for place, image in enumerate(inspected.images.frame["image_hash"])}
    rows = inspected.questions.frame.filter(pl.col("answer").str.strip_chars().fill_null("") != "")
    asked = rows.select(pl.col("question").str.strip_chars(), "answer", "image_hash")
    tasks = []
    for (question,), group in asked.group_by("question", maintain_order=True):
        answers: list[str | None] = [None] * len(index)
        for answer, image in group.select("answer", "image_hash").iter_rows():
            answers[index[image]] = " ".join(strict_words(answer)) or answer
        task = _class_task(str(question), answers)
        if task is not None:
            tasks.append(task)
    return tuple(sorted(tasks, key=lambda task: -len(task.labels))[:MOST_QUESTIONS])


def _class_task(name: str, values: Sequence[str | None], most: int = MOST_CLASSES) -> ProbeTask | None:
    """A task over whole images; `None` if the values are not a few classes with enough images."""
    counts = {value: values.count(value) for value in sorted({value for value in values if value is not None})}
    classes = tuple(value for value, count in counts.items() if count >= FEWEST_EXAMPLES)
    examples = sum(counts[value] for value in classes)
    if not 2 <= len(classes) <= most or examples < COVERED * sum(counts.values()):
        return None
    images = np.array([place for place, value in enumerate(values) if value in classes])
    labels = np.array([classes.index(value) for value in values if value is not None and value in classes])
    return ProbeTask(name=name, classes=classes, images=images, labels=labels, cells=None)

"""Scores of the probes at every stage of a student, with their values in resamples of the images.

S stages, K images, C classes over all tasks of a family, B resamples.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ....progress import Progress
from ....student.inspection.token_capture import StageTokens
from ....student.metrics.result import MetricResult
from ....teacher_cache.geometry.patch_grid import PatchGrid
from .linear_probe import held_out_predictions
from .probe_tasks import ProbeFamily, ProbeTask, position_features

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StageScores:
    """Held-out predictions of a family's probes, summed per image and class."""

    family: ProbeFamily
    stages: tuple[str, ...]
    """From pixels and teacher to the input of the last layer."""
    correct: Float[np.ndarray, "stages images classes"]
    """Number of examples of each class that the probe at a stage predicts correctly."""
    floor_correct: Float[np.ndarray, "images classes"]
    """The same for the probe without image features."""
    examples: Float[np.ndarray, "images classes"]
    task_of: Int[np.ndarray, " classes"]
    """Index of the task of each class."""
    images: int
    """Number of images with an example."""

    def values(self) -> Float[np.ndarray, " stages"]:
        """Balanced accuracy at every stage: the mean over classes, then over tasks."""
        return self._score(self.correct.sum(axis=1), self.examples.sum(axis=0))

    def floor(self) -> float:
        """Balanced accuracy without image features."""
        return float(self._score(self.floor_correct.sum(axis=0), self.examples.sum(axis=0)))

    def result(self, place: int) -> MetricResult:
        """The balanced accuracy at one stage as sums per image, for intervals."""
        parts = np.concatenate([self.correct[place], self.examples], axis=1)
        half = self.examples.shape[1]
        return MetricResult(
            name=self.stages[place],
            parts=parts,
            combine=lambda sums: self._score(sums[..., :half], sums[..., half:]),
        )

    def resampled(self, seed: int) -> tuple[Float[np.ndarray, "resamples stages"], Float[np.ndarray, " resamples"]]:
        """The values, and the floor, in resamples of the images; the same images at every stage."""
        times = resampled_images(len(self.examples), seed)
        examples = times @ self.examples
        values = [self._score(times @ correct, examples) for correct in self.correct]
        return np.stack(values, axis=1), self._score(times @ self.floor_correct, examples)

    def _score(self, correct: np.ndarray, examples: np.ndarray) -> np.ndarray:
        shares = np.divide(
            correct, examples, out=np.full(np.broadcast(correct, examples).shape, np.nan), where=examples > 0
        )
        tasks = [shares[..., self.task_of == number] for number in range(int(self.task_of.max()) + 1)]
        return np.asarray(_mean(np.stack([_mean(task) for task in tasks], axis=-1)))


def probe_stages(
    family: ProbeFamily,
    stages: Sequence[StageTokens],
    chosen: Int[np.ndarray, "images chosen"],
    grid: PatchGrid,
    *,
    seed: int,
    progress: Progress,
    known: StageScores | None = None,
    same: Collection[str] = (),
) -> StageScores:
    """Train and score a family's probes at every stage.

    `same` are stages whose tokens are those of the student that `known` belongs to; their scores are copied.
    """
    progress.start(f"probing {family.name}", len(stages))
    correct = []
    for stage in stages:
        if known is not None and stage.name in same:
            correct.append(known.correct[known.stages.index(stage.name)])
        else:
            features = [task.features(stage) for task in family.tasks]
            correct.append(_correct(family, features, chosen, grid, seed))
        progress.advance()
    examples = _per_class(family, [np.ones(len(task.labels)) for task in family.tasks], len(chosen))
    return StageScores(
        family=family,
        stages=tuple(stage.name for stage in stages),
        correct=np.stack(correct),
        floor_correct=known.floor_correct if known is not None else _floor(family, examples, chosen, grid, seed),
        examples=examples,
        task_of=np.repeat(np.arange(len(family.tasks)), [len(task.classes) for task in family.tasks]),
        images=int(np.count_nonzero(examples.sum(axis=1))),
    )


def resampled_images(images: int, seed: int, resamples: int = RESAMPLES) -> Float[np.ndarray, "resamples images"]:
    """How often each image is drawn when as many images as there are are drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(images, size=(resamples, images))
    flat = (drawn + images * np.arange(resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=resamples * images).reshape(resamples, images).astype(float)


def _correct(
    family: ProbeFamily, features: Sequence[np.ndarray], chosen: np.ndarray, grid: PatchGrid, seed: int
) -> Float[np.ndarray, "images classes"]:
    hits = []
    for task, values in zip(family.tasks, features, strict=True):
        extra = _extra(task, chosen, grid)
        predicted = held_out_predictions(values, extra, task.labels, task.images, seed=seed)
        hits.append((predicted == task.labels).astype(float))
    return _per_class(family, hits, len(chosen))


def _floor(
    family: ProbeFamily, examples: np.ndarray, chosen: np.ndarray, grid: PatchGrid, seed: int
) -> Float[np.ndarray, "images classes"]:
    """Predictions from positions alone, or expected hits of random guesses."""
    if all(task.cells is not None for task in family.tasks):
        return _correct(family, [np.empty((len(task.labels), 0)) for task in family.tasks], chosen, grid, seed)
    chance = np.concatenate([np.full(len(task.classes), 1 / len(task.classes)) for task in family.tasks])
    return np.asarray(examples * chance)


def _extra(task: ProbeTask, chosen: np.ndarray, grid: PatchGrid) -> np.ndarray:
    if task.cells is None:
        return np.empty((len(task.labels), 0))
    return position_features(chosen[task.images, task.cells], grid)


def _per_class(family: ProbeFamily, values: Sequence[np.ndarray], images: int) -> Float[np.ndarray, "images classes"]:
    """Sums of one value per example over each image and class; the classes of all tasks side by side."""
    sums = []
    for task, weights in zip(family.tasks, values, strict=True):
        table = np.zeros((images, len(task.classes)))
        np.add.at(table, (task.images, task.labels), weights)
        sums.append(table)
    return np.concatenate(sums, axis=1)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without nan; nan if there is nothing else."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=-1)
    return np.asarray(np.divide(total, known.sum(axis=-1), out=np.full(total.shape, np.nan), where=known.any(axis=-1)))

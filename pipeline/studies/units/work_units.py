"""Units of work: what determines the result of each, and how it is done.

A unit is `student align` of one seed, the merge of its result, `student train` of one arm and seed, or the answers of
one student to one set of questions. Its digest covers settings and the content of all inputs, but no path, so arms,
regimes and specifications that need the same unit share it.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ....atomic import remove_tree
from ....choices import DtypeChoice
from ....progress import Progress
from ....student.adapters.adapter_folder import ADAPTER_RECORD
from ....student.decoding import Decoding
from ....student.loading.student_loading import load_student
from ....student.training.checkpoints import checkpoints_in, last_whole_checkpoint
from ...align.align_settings import AlignSettings
from ...align.align_student import ALIGN_SUMMARY_FILE, run_align
from ...devices import pick_device
from ...evaluation.evaluate import evaluate_student
from ...model_folders import export_student
from ...training.settings import Settings
from ...training.train import SUMMARY_FILE, run_training
from .study_inputs import DataStore, DrawnManifest
from .unit_folder import RUN_FOLDER, UNITS_FOLDER


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit(ABC):
    """One unit of work."""

    KIND: ClassVar[str]
    label: str
    """For people: regime, arm, seed."""
    identity: Mapping[str, Any]
    """Everything that determines the result."""
    needs: "tuple[Unit, ...]" = ()
    """Units whose results this one reads."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the kind, the identity and the digests of what it needs."""
        values = {"kind": self.KIND, **self.identity, "needs": [unit.digest for unit in self.needs]}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def folder(self, out: Path) -> Path:
        """Its folder in that of the study."""
        return out / UNITS_FOLDER / f"{self.KIND}-{self.digest[:16]}"

    def run_folder(self, out: Path) -> Path:
        """The folder that its stage writes."""
        return self.folder(out) / RUN_FOLDER

    @abstractmethod
    def do(self, out: Path, progress: Progress) -> dict[str, Any]:
        """Do the work, or continue it; return what its record says of the result.

        Raises:
            KeyboardInterrupt: The user stopped it; what was done is kept.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignUnit(Unit):
    """`student align`."""

    KIND = "align"
    settings: AlignSettings
    targets: DrawnManifest
    anchors: DrawnManifest

    def placed(self, out: Path | None) -> AlignSettings:
        """The settings with the paths of the drawn images."""
        drawn = {"targets": self.targets.path, "anchors": self.anchors.path}
        return self.settings.model_copy(update={"data": self.settings.data.model_copy(update=drawn)})

    def do(self, out: Path, progress: Progress) -> dict[str, Any]:
        run = self.run_folder(out)
        report = run_align(self.placed(out), run, progress, resume=_may_resume(run, ALIGN_SUMMARY_FILE))
        if report.result.training.interrupted:
            raise KeyboardInterrupt
        _remove_checkpoints(run)
        names = ("translation_r2", "target_r2_before", "target_r2_after", "anchors_moved")
        return {name: report.summary()[name] for name in names}


@dataclass(frozen=True, kw_only=True, eq=False)
class MergeUnit(Unit):
    """`student export` of an aligned student, from which an arm trains."""

    KIND = "merge"

    def do(self, out: Path, progress: Progress) -> dict[str, Any]:
        run = self.run_folder(out)
        if run.is_dir():  # complete, or nothing: it is written under another name and renamed
            remove_tree(run)
        export_student(self.needs[0].run_folder(out), run, base=None, dtype=None, evaluations=(), progress=progress)
        return {"bytes": sum(path.stat().st_size for path in run.rglob("*") if path.is_file())}


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainUnit(Unit):
    """`student train`, from the base or from a merged student."""

    KIND = "train"
    settings: Settings
    questions: DrawnManifest

    def placed(self, out: Path | None) -> Settings:
        """The settings with the path of the drawn questions, and of the merged base if there is an `out`."""
        data = self.settings.data.model_copy(update={"manifest": self.questions.path})
        student = self.settings.student
        if self.needs and out is not None:
            student = student.model_copy(update={"path": self.needs[0].run_folder(out)})
        return self.settings.model_copy(update={"data": data, "student": student})

    def do(self, out: Path, progress: Progress) -> dict[str, Any]:
        run = self.run_folder(out)
        result = run_training(self.placed(out), run, progress, resume=_may_resume(run, SUMMARY_FILE)).result
        if result.interrupted:
            raise KeyboardInterrupt
        _remove_checkpoints(run)
        return {"steps": result.steps, "final": {name: float(value) for name, value in result.final.items()}}


@dataclass(frozen=True, kw_only=True, eq=False)
class AnswerUnit(Unit):
    """The answers of one student to one set of questions, with their scores."""

    KIND = "answer"
    base: Path
    """The base of a student that nothing was trained of, or whose training began with the base."""
    template: str | None
    dtype: DtypeChoice
    device: str | None
    features: DataStore | None
    """Store of an adapter that projects the teacher's features; None for any other student."""
    questions: DrawnManifest
    decoding: Decoding
    batch_size: int

    def do(self, out: Path, progress: Progress) -> dict[str, Any]:
        run, manifest = self.run_folder(out), self.questions.manifest
        if run.is_dir():
            remove_tree(run)  # of a killed process; answering again takes less than checking what is there
        adapter = self.needs[0].run_folder(out) if self.needs else None
        merged = self.needs[0].needs if self.needs else ()
        student = load_student(
            merged[0].run_folder(out) if merged else self.base,
            adapter=adapter,
            device=pick_device(self.device),
            dtype=self.dtype,
            template=self.template,
            features=None if self.features is None else self.features.open(),
        )
        report = evaluate_student(
            student, manifest, self.decoding, run, batch_size=self.batch_size, adapter=adapter, progress=progress
        )
        return {"questions": len(manifest), "answering_seconds": report.seconds, "finishes": dict(report.finishes)}


def _may_resume(run: Path, summary: str) -> bool:
    """Whether a run that was stopped can be continued; what cannot is removed. `summary`: its last file."""
    if last_whole_checkpoint(run) is not None or ((run / ADAPTER_RECORD).is_file() and (run / summary).is_file()):
        return True
    if run.is_dir():
        remove_tree(run)
    return False


def _remove_checkpoints(run: Path) -> None:
    """Remove the checkpoints of a finished run, which are several times as large as its adapter."""
    for checkpoint in checkpoints_in(run):
        remove_tree(checkpoint)

"""The demo: both stages and the label-free stage on synthetic images, three arms with the same budget, one comparison.

Every step is the same as in a user's own run, and its command is printed. Run an interrupted demo again to continue
it.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from ...atomic import write_whole
from ...errors import InputError
from ...plain_text import as_typed
from ...progress import Progress
from ...student.adapters.adapter_folder import ADAPTER_RECORD
from ...student.decoding import Decoding
from ...student.file_errors import read_object
from ...student.loading.student_loading import load_student
from ...student.training.checkpoints import last_whole_checkpoint
from ...teacher_cache.store import open_store
from ..align.align_student import ALIGN_SUMMARY_FILE, run_align
from ..data.manifest import Manifest
from ..data.phantoms.phantom_dataset import make_phantoms
from ..data.samples import manifest_samples
from ..evaluation.evaluate import EvaluationReport, evaluate_student
from ..extraction.extract import CrewRequest, ExtractionRequest, run_extraction
from ..extraction.image_sources import ImageRequest
from ..training.train import run_training
from .demo_arms import ALIGNED, ARMS, BASE, GRID, Arm, DemoPlan, align_settings, arm_settings
from .demo_results import ArmMeasures, Findings, compare_arms, measure_arm

ASSETS = Path(__file__).parent / "assets"
STUDY_FILE = ASSETS / "phantom-study.json"
"""study-results.json of `medalign study configs/study/phantoms.yaml`, as that command wrote it."""
SCORED_FILE = "scored-questions.parquet"
"""The questions of the test split that the table uses."""
LONGEST_ANSWER = 8
"""Tokens."""
BATCH = 32
"""Images or questions per forward pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoReport:
    """The results of the demo and its folder."""

    out: Path
    plan: DemoPlan
    arms: dict[str, ArmMeasures]
    """By title, in order."""
    findings: Findings


def run_demo(out: Path, seed: int, progress: Progress, *, plan: DemoPlan | None = None) -> DemoReport:
    """Draw, extract, align without labels, train three arms, evaluate, compare.

    Raises:
        InputError: `out` contains something else, or a demo with other sizes or of another version.
    """
    plan = plan or DemoPlan(seed=seed)
    _claim(out, plan)
    _prepare(out, plan, progress)
    _align(out, plan, progress)
    measures = {arm.title: _run_arm(arm, out, plan, progress) for arm in ARMS}
    findings = compare_arms(measures, baseline=ARMS[0].title, seed=seed)
    return DemoReport(out=out, plan=plan, arms=measures, findings=findings)


def _claim(out: Path, plan: DemoPlan) -> None:
    """Claim the folder, or recognize it as an unfinished demo with the same plan."""
    stamp = out / "demo-plan.json"
    values = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
    if stamp.is_file():
        if read_object(stamp) != values:
            raise InputError(
                f"{out} contains a demo with another plan (demo-plan.json): pass another --out or remove it"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and has no demo: pass another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(stamp, json.dumps(values, indent=2) + "\n")


def _prepare(out: Path, plan: DemoPlan, progress: Progress) -> None:
    """Write the phantoms, the student base and the teacher store."""
    phantoms, store = out / "phantoms", out / "store.zarr"
    if not (phantoms / "manifest.parquet").is_file():
        _tell(
            progress,
            f"medalign data phantom --out {as_typed(phantoms)} --images {plan.phantoms} --shift {plan.shift:g} "
            f"--anchors {plan.anchors} --seed {plan.seed}",
        )
        shutil.rmtree(phantoms, ignore_errors=True)
        make_phantoms(phantoms, plan.phantoms, plan.seed, progress, shift=plan.shift, anchors=plan.anchors)
    if not (out / SCORED_FILE).is_file():
        _scored_questions(Manifest.read(phantoms / "manifest.parquet").split("test")).write(out / SCORED_FILE)
    shutil.copytree(ASSETS / "phantom-student", out / BASE, dirs_exist_ok=True)
    shutil.copy(ASSETS / "phantom-teacher.safetensors", out / "teacher.safetensors")
    _tell(
        progress,
        f"medalign teacher extract --teacher phantom-tiny --weights {as_typed(out / 'teacher.safetensors')} "
        f"--manifest {as_typed(phantoms / 'manifest.parquet')} --grid {GRID} --batch-size {BATCH} --device cpu "
        f"--out {as_typed(store)}",
    )
    request = ExtractionRequest(
        teacher="phantom-tiny",
        weights=str(out / "teacher.safetensors"),
        out=store,
        images=ImageRequest(manifest=phantoms / "manifest.parquet"),
        crew=CrewRequest(device="cpu"),
        grid=GRID,
        batch_size=BATCH,
        resume=True,
    )
    run_extraction(request, progress)


def _align(out: Path, plan: DemoPlan, progress: Progress) -> None:
    """Run the label-free stage."""
    adapter = out / ALIGNED
    if (adapter / ALIGN_SUMMARY_FILE).is_file():
        return
    settings = align_settings(out, plan)
    config = _write_config(out, "align", settings.to_yaml())
    _tell(progress, f"medalign student align {as_typed(config)} --out {as_typed(adapter)}")
    was_started = last_whole_checkpoint(adapter) is not None
    if run_align(settings, adapter, progress, resume=was_started).result.training.interrupted:
        raise KeyboardInterrupt


def _write_config(out: Path, name: str, text: str) -> Path:
    config = out / "configs" / f"{name}.yaml"
    config.parent.mkdir(exist_ok=True)
    write_whole(config, text)
    return config


def _run_arm(arm: Arm, out: Path, plan: DemoPlan, progress: Progress) -> ArmMeasures:
    folder = out / "arms" / arm.name
    settings = arm_settings(arm, out, plan)
    config = _write_config(out, arm.name, settings.to_yaml())
    if not (folder / ADAPTER_RECORD).is_file():
        _tell(progress, f"medalign student train {as_typed(config)} --out {as_typed(folder)}")
        result = run_training(settings, folder, progress, resume=last_whole_checkpoint(folder) is not None).result
        if result.interrupted:
            raise KeyboardInterrupt
    return _evaluate_arm(arm, folder, out, progress)


def _evaluate_arm(arm: Arm, folder: Path, out: Path, progress: Progress) -> ArmMeasures:
    answers, questions = out / "evaluations" / arm.name, out / SCORED_FILE
    _tell(
        progress,
        f"medalign student evaluate --student {as_typed(folder)} --manifest {as_typed(questions)} "
        f"--max-new-tokens {LONGEST_ANSWER} --batch-size {BATCH} --device cpu --out {as_typed(answers)}",
    )
    student = load_student(folder)
    manifest = Manifest.read(questions).split("test")
    report: EvaluationReport = evaluate_student(
        student,
        manifest,
        Decoding(max_new_tokens=LONGEST_ANSWER),
        answers,
        batch_size=BATCH,
        resume=answers.exists(),
        adapter=folder,
        progress=progress,
    )
    samples = manifest_samples(manifest)
    return measure_arm(
        student, samples, manifest, open_store(out / "store.zarr"), report.out, out / "phantoms" / "masks", progress
    )


def _scored_questions(manifest: Manifest) -> Manifest:
    """Only open and closed questions: the demo does not score reports."""
    frame = manifest.questions
    return Manifest(frame.filter(frame["answer_type"].is_in(["open", "closed"])), manifest.root, manifest.source)


def _tell(progress: Progress, command: str) -> None:
    """Print the command of the next step, which also works on other data."""
    progress.note("")
    progress.note(f"$ {command}")

"""Pages of commands, from small folders of their real formats and from real records of their results."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import torch
from medalign.pipeline.data import saved_tables
from medalign.pipeline.data.importers.common import read_images
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.data.samples import manifest_samples
from medalign.pipeline.demo import demo_arms
from medalign.pipeline.demo.demo import SCORED_FILE, DemoPlan, DemoReport, _scored_questions
from medalign.pipeline.demo.demo_page import demo_page
from medalign.pipeline.demo.demo_results import MEASURES, SIMILARITY, ArmMeasures, compare_arms
from medalign.pipeline.inspection.cell_labels import CellLabels
from medalign.pipeline.inspection.inspected_images import InspectedImages
from medalign.pipeline.inspection.inspection_page import inspection_page
from medalign.pipeline.inspection.probes.probe_tasks import ProbeFamily, ProbeTask
from medalign.pipeline.inspection.questions.asked_questions import asked_questions
from medalign.pipeline.inspection.questions.question_capture import ArmQuestions
from medalign.pipeline.inspection.questions.questions_report import report_questions
from medalign.pipeline.inspection.token_findings import TokenFindings
from medalign.pipeline.inspection.tokens.token_study import choose_tokens
from medalign.pipeline.reports.page import Page
from medalign.pipeline.reports.runs.comparison_page import comparison_page
from medalign.pipeline.reports.runs.evaluation_page import evaluation_page
from medalign.pipeline.reports.runs.grounding_page import grounding_page
from medalign.pipeline.reports.runs.training_pages.train_page import train_page
from medalign.progress import Silent
from medalign.student.decoding.generation import Answer
from medalign.student.inputs.image_processing import CLIP_MEAN, CLIP_STD, StudentImages
from medalign.student.inspection.token_capture import StageTokens
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from run_folders import write_compared, write_evaluation, write_grounding, write_training
from students import write_images

ARMS = {arm.name: arm.title for arm in demo_arms.ARMS}


def command_pages(folder: Path) -> Iterator[tuple[str, Page]]:
    """The page of every command that runs something, by the command's name."""
    for name, page in (
        ("train", _train),
        ("evaluate", _evaluate),
        ("compare", _compare),
        ("ground", _ground),
        ("demo", _demo),
        ("inspect", _inspect),
    ):
        (folder / name).mkdir(parents=True)
        yield name, page(folder / name)


def _train(folder: Path) -> Page:
    log = [{"step": step, "loss_lm": 1 / step, "loss_vis": 0.1, "data_wait": 0.1} for step in range(1, 11)]
    return train_page(write_training(folder / "run", log))


def _evaluate(folder: Path) -> Page:
    return evaluation_page(write_evaluation(folder))


def _compare(folder: Path) -> Page:
    rows = [
        {"adapter": adapter, "decoding": "greedy", "metric": metric, "value": 0.5, "low": 0.4, "high": 0.6}
        | {"difference": gap, "difference_low": gap and gap - 0.1, "difference_high": gap and gap + 0.1, "p_holm": gap}
        for metric in ("open_strict", "closed_strict")
        for adapter, gap in (("LoRA", None), ("MEDALIGN", 0.02))
    ]
    return comparison_page(write_compared(folder / "run", rows, warnings=["Few images."]))


def _ground(folder: Path) -> Page:
    return grounding_page(write_grounding(folder, np.random.default_rng(0).random((3, 2, 4))))


def _demo(folder: Path) -> Page:
    make_phantoms(folder / "phantoms", 12, 0, Silent())
    _scored_questions(Manifest.read(folder / "phantoms" / "manifest.parquet").split("test")).write(folder / SCORED_FILE)
    manifest = Manifest.read(folder / SCORED_FILE).split("test")
    random = np.random.default_rng(0)
    for name in ARMS:
        predictions = manifest.frame.select("question_id", prediction="answer", strict_kind="answer_type")
        scores = pl.Series("strict_score", random.integers(0, 2, predictions.height).astype(float))
        saved_tables.write(
            _made(folder / "evaluations" / name) / "predictions.parquet", predictions.with_columns(scores)
        )
        lines = [json.dumps({"step": step, "loss_lm": 1 / step}) for step in (25, 50)]
        (_made(folder / "arms" / name) / "log.jsonl").write_text("\n".join(lines))
    images = tuple(sample.images[0].image_hash for sample in manifest_samples(manifest))
    arms = {title: _measures(images, random) for title in ARMS.values()}
    findings = compare_arms(arms, baseline="LoRA", seed=0)
    return demo_page(DemoReport(out=folder, plan=DemoPlan(seed=0), arms=arms, findings=findings))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _measures(images: tuple[str, ...], random: np.random.Generator) -> ArmMeasures:
    names = [*(measure.name for measure in MEASURES), *SIMILARITY]
    maps = torch.from_numpy(random.random((len(images), 64), dtype=np.float32))
    return ArmMeasures(
        images=images,
        values={name: tuple(random.random(len(images)).tolist()) for name in names},
        reference={name: {"chance": 0.1, "teacher": 0.2} for name in ("mass", "pointing")},
        attention=maps,
        teacher_attention=maps,
    )


def _inspect(folder: Path) -> Page:
    """Twelve images with made-up tokens of a base and an adapter; linear probes on them find nothing."""
    names = [path.name for path in write_images(folder / "images", [(24, 24)] * 12)]
    columns = read_images(folder / "images", names, Silent()).columns
    rows = [
        ManifestRow(
            question_id=f"q{number}", question="Is it a scan?", answer="yes", answer_type="closed", split="test",
            data_use="public", **columns[name],
        )
        for number, name in enumerate(names)
    ]  # fmt: skip
    manifest = Manifest.from_rows(rows, folder / "images", "made up")
    grid, random = PatchGrid(3, 3), np.random.default_rng(0)
    labels = np.tile([0, 1, 0, 1], (12, 1))
    cells = CellLabels(kind="region", names=("background", "nodule"), chosen=np.tile(range(4), (12, 1)), labels=labels)
    task = ProbeTask(
        name="regions", classes=cells.names, images=np.repeat(range(12), 4), labels=labels.ravel(),
        cells=np.tile(range(4), 12),
    )  # fmt: skip
    tokens = TokenFindings(
        cells=cells, families=(ProbeFamily(name="regions", tasks=(task,), floor="position alone"),),
        named=choose_tokens(cells, seed=0), grid=grid, aligned=(1,), seed=0,
    )  # fmt: skip
    arms = [_inspected_arm("base", None), _inspected_arm("lora", SimpleNamespace(layers=(1,)))]
    images = StudentImages(size=24, grid=grid, mean=CLIP_MEAN, std=CLIP_STD)
    parts = {}
    for arm in arms:
        stages = [_stage(name, random) for name in ("pixels", "tower", "layer 1")]
        tokens.add(arm.name, stages, None, Silent())
        answers = tuple(Answer(text=text, finish="end", forwards=1) for text in random.choice(["yes", "no"], 12))
        maps = random.random((12, 2, 9)).astype(np.float32)
        parts[arm.name] = ArmQuestions(attention=maps, answers=answers, loss_lm=tuple(random.random(12).tolist()))
    questions = report_questions(asked_questions(manifest, images), ["q0", "q1"], parts, None, (1,), Silent())
    inspected = InspectedImages(images=manifest, questions=manifest, asked=manifest, shown=manifest, left_out={})
    request = SimpleNamespace(split="test", store=None, seed=0)
    page, _ = inspection_page(request, arms, inspected, tokens, questions, {}, ["Few images."])
    return page


def _inspected_arm(name: str, adapter: object) -> SimpleNamespace:
    facts = SimpleNamespace(
        base=SimpleNamespace(name="tiny"), template_name="plain", dtype="float32", adapter=adapter, layers=2,
        images=SimpleNamespace(grid="3x3"),
    )  # fmt: skip
    return SimpleNamespace(name=name, facts=facts, aligned_layers=() if adapter is None else adapter.layers)


def _stage(name: str, random: np.random.Generator) -> StageTokens:
    return StageTokens(
        name=name,
        tokens=random.normal(size=(12, 4, 6)).astype(np.float32),
        pooled=random.normal(size=(12, 6)).astype(np.float32),
        agreement=random.uniform(0, 1, 12).astype(np.float32),
    )

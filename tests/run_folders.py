"""Folders of finished runs, written without a student: what a report is made from."""

import json
import re
from dataclasses import asdict, fields
from html import unescape

import numpy as np
import polars as pl
import yaml
from medalign.pipeline.data.annotations.region_questions import coverage_of, grounded_questions
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.data.regions import Region
from medalign.pipeline.evaluation.comparison.analysis import Finding
from medalign.pipeline.evaluation.grounding.ground import GroundingReport
from medalign.pipeline.evaluation.grounding.layer_statistics import summarize_layers
from medalign.pipeline.evaluation.grounding.measures import measure_layers
from medalign.pipeline.evaluation.scoring import write_scores
from medalign.pipeline.runs.answer_log import LoggedAnswer, write_table
from medalign.pipeline.runs.run_inputs import RunInputs, write_inputs
from medalign.student.adapters.adapter_folder import AdapterRecord
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from rows import image_fields, row, written
from students import write_images

RUN = {
    "medalign": "0.1.0",
    "base": "tiny",
    "base_fingerprint": "b" * 64,
    "adapter": "lora",
    "adapter_fingerprint": "a" * 64,
    "template": "plain",
    "dtype": "float32",
    "lora": "merged",
    "splits": ["test"],
    "batch_size": 2,
    "decoding": {"name": "greedy", "max_new_tokens": 4, "settings": {}},
}
QUESTIONS = (
    ("closed", "yes", "yes", "end"),
    ("closed", "yes", "no", "end"),
    ("closed", "no", "no", "end"),
    ("closed", "yes", "Yes, it is.", "length"),
    ("open", "left lung", "left kidney", "end"),
    ("open", "liver", "", "empty"),
    ("open", "two cysts", "two cysts", "end"),
    ("report", "Clear lungs.", "The lungs are clear.", "end"),
)
"""Type, reference, answer and how it ended; two questions for each of four images."""


def answer_log(texts):
    return [
        LoggedAnswer(question_id=f"q{number}", prediction=text, seconds=0.5, forwards=3, finish=finish)
        for number, (text, finish) in enumerate(texts)
    ]


def write_evaluation(folder, questions=QUESTIONS, *, data_use="private", **asked):
    """`images`, `m.parquet` and the finished evaluation `run`; returns the last."""
    fields = [image_fields(path) for path in write_images(folder, [(24, 16), (16, 24), (20, 20), (30, 18)])]
    modality = ("CT", "CT", "MRI", "MRI")
    rows = [
        row(
            f"q{number}",
            fields[number % 4],
            question=f"Question {number}?",
            answer=reference,
            answer_type=kind,
            split="test",
            data_use=data_use,
            modality=modality[number % 4],
            **asked,
        )
        for number, (kind, reference, *_) in enumerate(questions)
    ]
    manifest, run = written(folder, *rows), folder / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps(RUN))
    write_inputs(run, RunInputs(manifest=manifest))
    logged = answer_log([(text, finish) for _, _, text, finish in questions])
    record = RUN | {"questions": len(questions)}
    write_scores(run, record, Manifest.read(manifest).frame, logged, [], {})
    return run


def write_training(run, log, *, best=None, data_use="credentialed"):
    """A finished training run with this log: a list of values of each line."""
    run.mkdir(parents=True)
    settings = {"student": {"path": "base"}, "alignment": {"layer": 2, "alpha": 1.0, "beta": 0.1}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    record = AdapterRecord(
        base="../base",
        base_fingerprint="b" * 64,
        layers=(2,),
        rotation="full",
        template="plain",
        attention_normalisation="sum",
        store=None,
        settings=settings,
        data_use=data_use,
    )
    (run / "medalign.json").write_text(json.dumps(asdict(record)))
    plan = {"trainable_language_model": 640, "trainable_rotation": 64, "learning_rate_language_model": 1e-3}
    result = {"steps": 8, "planned_steps": 8, "interrupted": False, "seconds": 12.5, "final": {}, "best": best}
    (run / "summary.json").write_text(json.dumps({"adapter": str(run), **result, "plan": plan}))
    return run


def write_grounding(folder, attention, *, aligned=(1,), data_use="public"):
    """A finished grounding run on three images with boxes; `attention` is [3 questions, layers, 4 patches].

    The images are 16 x 16, 32 x 16 and 16 x 16 pixels; the regions are the left half, the right half, the top half.
    """
    fields = [image_fields(path) for path in write_images(folder, [(16, 16), (32, 16), (16, 16)])]
    boxes = ((0, 0, 8, 16), (16, 0, 16, 16), (0, 0, 16, 8))
    rows = [
        row(
            f"q{number}",
            image,
            question="Is the nodule big?",
            split="test",
            data_use=data_use,
            regions=(Region(name="nodule", box=box),),
        )
        for number, (image, box) in enumerate(zip(fields, boxes, strict=True))
    ]
    manifest, run, grid = written(folder, *rows), folder / "run", PatchGrid(2, 2)
    run.mkdir()
    (run / "run.json").write_text(json.dumps(RUN | {"questions": 3}))
    questions = grounded_questions(Manifest.read(manifest), (), None)
    maps = np.asarray(attention, dtype=np.float32)
    np.save(run / "attention.npy", maps)
    table = measure_layers(maps, coverage_of(questions, grid), questions.names, questions.manifest)
    write_table(run / "grounding.parquet", table)
    write_inputs(run, RunInputs(manifest=manifest))
    report = GroundingReport(
        out=run,
        questions=3,
        left_out={},
        aligned_layers=aligned,
        grid=grid,
        against=None,
        findings=summarize_layers(table),
    )
    (run / "grounding.json").write_text(json.dumps(report.summary()))
    return run


def text_of(html: str) -> str:
    """The visible text of a page, without marks."""
    body = html.split("<body>")[1].split("<script>")[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).replace("\xa0", " ").split())


def write_compared(run, findings, *, warnings=(), tables=(), reading="strict"):
    """A finished comparison with these findings; missing fields are null. The baseline is LoRA with greedy decoding."""
    run.mkdir(parents=True)
    names = [field.name for field in fields(Finding) if field.name != "system"]
    known = {"questions": 20, "images": 12, "repeats": 1}
    rows = [dict.fromkeys(names) | known | {"student": "tiny", "data": "noise"} | finding for finding in findings]
    write_table(run / "findings.parquet", pl.DataFrame(rows, infer_schema_length=None))
    systems = dict.fromkeys((row["student"], row["adapter"], row["decoding"]) for row in rows)
    cells = [
        dict(zip(("student", "adapter", "decoding"), system, strict=True))
        | {"data": "noise", "seed": seed, "answers": 20, "seconds_per_answer": 0.5 + seed, "forwards_per_answer": 4.0}
        for system in systems
        for seed in (0, 1)
    ]
    write_table(run / "cells.parquet", pl.DataFrame(cells))
    answers = {"medalign": "0.1.0", "students.tiny.base_fingerprint": "b" * 64}
    (run / "comparison.json").write_text(json.dumps({"answers": answers}))
    record = {
        "format": "medalign-comparison-tables",
        "version": 1,
        "title": "A comparison",
        "adapter": "LoRA",
        "decoding": "greedy",
        "reading": reading,
        "data_use": "credentialed",
        "preamble": ["2 cells."],
        "warnings": list(warnings),
        "tables": list(tables),
    }
    (run / "tables.json").write_text(json.dumps(record))
    return run

"""Commands that run something write its report once, when it is whole, and their summaries name it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_tree import COMMANDS
from medalign.pipeline.evaluation import evaluate
from medalign.pipeline.evaluation.batches.array_tasks import PartReport
from medalign.pipeline.evaluation.comparison import compare_request
from medalign.pipeline.evaluation.grounding import ground
from medalign.pipeline.reports.runs import run_report
from medalign.pipeline.training import resume, train
from medalign.teacher_cache.workers.task import Task

ASKED = ("--student", "s", "--manifest", "m.parquet", "--out", "out")
SETTINGS = SimpleNamespace(data=SimpleNamespace(manifest="m.parquet"))
"""Settings, as far as the command uses them."""
RUNS = {
    "evaluate": (evaluate, "run_evaluation", ASKED),
    "ground": (ground, "run_grounding", ASKED),
    "compare": (compare_request, "compare_students", ("spec.yaml", "--out", "out")),
}


@pytest.fixture
def pages(monkeypatch, tmp_path):
    """The folders whose report was written."""
    written = []

    def write(out, progress):
        written.append(out)
        out.mkdir(exist_ok=True)
        (out / "report.html").write_text("page")
        return out / "report.html"

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDALIGN_NO_REPORT")
    monkeypatch.setattr(run_report, "try_run_report", write)
    monkeypatch.setattr("medalign.pipeline.evaluation.comparison.spec.load_comparison", lambda path: None)
    return written


def printed(capsys, *words):
    COMMANDS.main(list(words), prog_name="medalign", standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.parametrize("command", RUNS)
@pytest.mark.parametrize("ending", [(), ("--finish",), ("--resume",)])
def test_a_whole_run_has_one_report(pages, monkeypatch, capsys, command, ending):
    module, name, words = RUNS[command]
    report = SimpleNamespace(summary=lambda: {"questions": 3}, table=lambda: {"questions": 3}, rows=list, grids=[])
    monkeypatch.setattr(module, name, lambda *arguments: report)
    values = json.loads(printed(capsys, "student", command, *words, *ending, "--json"))
    assert values == {"questions": 3, "report": str(Path("out", "report.html"))}
    assert pages == [Path("out")]


@pytest.mark.parametrize("command", RUNS)
def test_a_task_has_none(pages, monkeypatch, capsys, command):
    module, name, words = RUNS[command]
    part = PartReport(out=Path("out"), task=Task(number=0, count=2), batches=4, done=2)
    monkeypatch.setattr(module, name, lambda *arguments: part)
    assert "report" not in json.loads(printed(capsys, "student", command, *words, "--task", "0/2", "--json"))
    assert pages == []


@pytest.mark.parametrize(("interrupted", "written"), [(False, 1), (True, 0)])
def test_an_interrupted_training_has_none(pages, monkeypatch, capsys, interrupted, written):
    result = SimpleNamespace(interrupted=interrupted)
    report = SimpleNamespace(
        summary=lambda: {"steps": 2}, table=lambda: {"steps": 2}, result=result, was_finished=False
    )
    monkeypatch.setattr(resume, "load_run_settings", lambda *arguments, **options: SETTINGS)
    monkeypatch.setattr(train, "run_training", lambda *arguments, **options: report)
    words = ["student", "train", "c.yaml", "--out", "out", "--json"]
    COMMANDS.main(words, prog_name="medalign", standalone_mode=False)
    values = json.loads(capsys.readouterr().out)
    assert values == {"steps": 2, "report": str(Path("out", "report.html")) if written else None}
    assert len(pages) == written


def test_a_finished_training_that_is_resumed_keeps_its_report(pages, monkeypatch, capsys):
    monkeypatch.setattr(resume, "load_run_settings", lambda *arguments, **options: SETTINGS)
    report = SimpleNamespace(
        summary=dict,
        table=dict,
        result=SimpleNamespace(interrupted=False),
        was_finished=True,
        ending=lambda: "it is finished",
    )
    monkeypatch.setattr(train, "check_out", lambda out, resume: None)
    monkeypatch.setattr(train, "run_training", lambda *arguments, **options: report)
    for number in (1, 2):
        values = json.loads(printed(capsys, "student", "train", "c.yaml", "--out", "out", "--resume", "--json"))
        assert values["report"] == str(Path("out", "report.html"))
        assert len(pages) == 1, f"written by start {number}"

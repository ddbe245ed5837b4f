"""Summaries end with the next step: a command that exists, with the paths of this run; nothing of it with --json."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_tree import COMMANDS
from medalign.cli import app
from medalign.pipeline.evaluation.batches.array_tasks import PartReport
from medalign.pipeline.row_output import Rows
from medalign.pipeline.shipped_files import shipped_files
from typer.testing import CliRunner

OUT = "some folder/out"
QUOTED = "'some folder/out'"
SPEC = {
    "students": [{"name": "s", "path": "base"}],
    "data": [{"name": "d", "manifest": "m.parquet"}],
    "decodings": ["greedy"],
    "baseline": {"adapter": "base", "decoding": "greedy"},
}
CONFIG = {
    "student": {"path": "base"},
    "data": {"manifest": "data/m.parquet", "store": "s.zarr"},
}


def report(**values):
    """The part of a report that its command reads."""
    nothing = {
        "summary": dict,
        "table": dict,
        "raise_for_unreadable": list,
        "raise_for_failures": list,
        "note_rest": lambda bars: None,
        "not_checked": str,
        "example_lines": list,
        "rows": lambda: Rows((), ()),
    }
    return SimpleNamespace(**nothing | values)


EXTRACTED = report(report=SimpleNamespace(root_sha256="0" * 64))
TRAINED = report(was_finished=False, result=SimpleNamespace(interrupted=False))
STEPS = {
    "data import folder images --out": (
        "data.import_manifest.import_manifest",
        report(),
        f"medalign teacher extract --teacher NAME --weights FILE --manifest {QUOTED} --out STORE.zarr",
    ),
    "data phantom --out": (
        "data.phantoms.phantom_dataset.make_phantoms",
        report(path=Path(OUT)),
        f"medalign teacher extract --teacher NAME --weights FILE --manifest {QUOTED} --out STORE.zarr",
    ),
    "teacher extract --teacher t --weights w --images i --out": (
        "extraction.extract.run_extraction",
        EXTRACTED,
        f"medalign student train CONFIG.yaml --set data.store={QUOTED} --out ADAPTER",
    ),
    "teacher finish": (
        "extraction.extract.finish_store",
        report(),
        f"medalign student train CONFIG.yaml --set data.store={QUOTED} --out ADAPTER",
    ),
    "store unpack store.zip --out": ("stores.share.unpack_store", report(), f"medalign store verify {QUOTED}"),
    "store pull elsewhere.zarr --out": ("stores.share.pull_store", report(), f"medalign store verify {QUOTED}"),
    "store subset all.zarr --manifest m.parquet --out": (
        "stores.share.subset_store",
        report(),
        f"medalign teacher preview {QUOTED} --images FOLDER",
    ),
    "store merge a.zarr b.zarr --out": (
        "stores.share.merge_stores",
        report(),
        f"medalign teacher preview {QUOTED} --images FOLDER",
    ),
    "store info": ("stores.verify.describe_store", report(), f"medalign teacher preview {QUOTED} --images FOLDER"),
    "store verify": (
        "stores.verify.verify_store",
        report(raise_for_problems=list),
        f"medalign teacher preview {QUOTED} --images FOLDER",
    ),
    "student init --llm l --vision tiny --out": (
        "model_folders.make_student",
        report(),
        f"medalign student train CONFIG.yaml --set student.path={QUOTED} --out ADAPTER",
    ),
    "student train config.json --out": (
        "training.train.run_training",
        TRAINED,
        f"medalign student evaluate --student {QUOTED} --manifest data/m.parquet --out RESULTS",
    ),
    "student train config.json --dry-run --out": (
        "training.plan.plan_training",
        report(),
        "run the same command with --out FOLDER in place of --dry-run to train",
    ),
    "student evaluate --student s --manifest m --out": (
        "evaluation.evaluate.run_evaluation",
        report(),
        "medalign student compare SPEC.yaml --out COMPARISON",
    ),
    "student attend --student s --image i --question q --out": (
        "attention.attend.run_attend",
        report(warnings=()),
        "medalign student ground --student s --manifest MANIFEST --out GROUNDING",
    ),
    "student inspect --student s --manifest m --out": (
        "inspection.inspect_students.run_inspection",
        report(),
        "medalign student attend --student s --image IMAGE --question QUESTION --out ATTENTION",
    ),
    "student compare spec.json --out": (
        "evaluation.comparison.compare_request.compare_students",
        report(grids=()),
        "medalign student export ADAPTER --out MODEL",
    ),
    "demo --out": (
        "demo.demo.run_demo",
        report(out=Path(OUT), plan=SimpleNamespace(seed=0)),
        "medalign data import table YOUR.csv --out MANIFEST.parquet",
    ),
}


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """Type a command whose work is replaced by its report; the lines that it prints on stdout."""
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps(CONFIG))
    Path("spec.json").write_text(json.dumps(SPEC))
    show = import_module("medalign.pipeline.evaluation.comparison.render")
    monkeypatch.setattr(show, "show_comparison", lambda summary, grids, as_json: None)
    monkeypatch.setattr(
        import_module("medalign.pipeline.attention.attend_table"), "show_attention", lambda report, as_json: None
    )
    monkeypatch.setattr(
        import_module("medalign.pipeline.inspection.inspection_table"), "show_inspection", lambda report, as_json: None
    )
    monkeypatch.setattr(import_module("medalign.pipeline.demo.demo_table"), "show_demo", lambda *report, as_json: None)

    def run(words: str, work: str, returned: object, *more: str) -> list[str]:
        module, _, function = work.rpartition(".")
        module = import_module(f"medalign.pipeline.{module}")
        monkeypatch.setattr(module, function, lambda *arguments, **options: returned)
        result = CliRunner().invoke(app, [*words.split(), OUT, *more])
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()

    return run


@pytest.mark.parametrize("words", STEPS)
def test_a_summary_ends_with_the_next_step(typed, words):
    work, returned, step = STEPS[words]
    last = typed(words, work, returned)[-1]
    assert last.startswith("next: ")
    assert step in last
    assert "next: " not in "".join(typed(words, work, returned, "--json"))


@pytest.mark.parametrize("words", STEPS)
def test_the_next_step_is_a_command_with_these_options(typed, words):
    work, returned, _ = STEPS[words]
    for command in re.findall("`(medalign [^`]+)`", typed(words, work, returned)[-1]):
        group, rest = COMMANDS, shlex.split(command)[1:]
        while hasattr(group, "commands"):
            group = group.commands[rest.pop(0)]
        group.make_context("medalign", list(rest), resilient_parsing=True)
        options = {name for parameter in group.params for name in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= {*options, "--help"}
        if command.startswith("medalign config copy"):
            assert rest[0] in shipped_files()


@pytest.mark.parametrize(
    ("words", "work", "unfinished"),
    [
        (
            "teacher extract --teacher t --weights w --images i --task 0/2 --out",
            "extraction.extract.run_extraction",
            report(report=SimpleNamespace(root_sha256=None)),
        ),
        (
            "student evaluate --student s --manifest m --task 0/2 --out",
            "evaluation.evaluate.run_evaluation",
            PartReport(out=Path(OUT), task=None, batches=2, done=1),
        ),
    ],
)
def test_a_task_has_no_next_step_of_its_own(typed, words, work, unfinished):
    """Its notes name the task that is missing, or the command that joins all of them."""
    assert "next: " not in "".join(typed(words, work, unfinished))

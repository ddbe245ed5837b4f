"""Evaluation, comparison and grounding by several processes and tasks: the same bytes as by one process."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from comparisons import bench_values, write_adapter, write_spec
from medalign.cli import app
from medalign.errors import InputError, SettingsError
from medalign.pipeline.data.importers.common import read_images
from medalign.pipeline.data.manifest import Manifest, ManifestRow, Turn
from medalign.pipeline.data.regions import Region
from medalign.pipeline.evaluation.batches import batch_work, conditions
from medalign.pipeline.evaluation.batches.dispatch import WorkRequest
from medalign.pipeline.evaluation.comparison.compare import run_comparison
from medalign.pipeline.evaluation.comparison.spec import load_comparison
from medalign.pipeline.evaluation.evaluate import EvaluationRequest, run_evaluation
from medalign.pipeline.evaluation.grounding.ground import GroundingRequest, run_grounding
from medalign.progress import Silent
from students import write_images, write_tiny_student
from typer.testing import CliRunner

QUESTIONS = 9
"""Five batches of two: with four processes one has two batches, and the last batch is not full."""


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A student, two adapters, and questions of different length about images with a box."""
    folder = tmp_path_factory.mktemp("bench")
    write_tiny_student(folder / "student")
    for seed, name in enumerate(("lora", "medalign")):
        write_adapter(folder / "student", folder / "adapters" / f"{name}-0", seed)
    names = [path.name for path in write_images(folder / "images", [(24, 24), (40, 20), (18, 30)])]
    columns = read_images(folder / "images", names, Silent()).columns
    rows = [
        ManifestRow(
            question_id=f"q{number}",
            question="Is there a nodule?" + " Really?" * (number % 4),
            answer="yes",
            answer_type="closed",
            split="test",
            data_use="public",
            history=(Turn("A scan?", "yes"),) if number == 3 else (),
            regions=(Region(name="Nodule", box=(0, 0, 8 + number, 8)),),
            **columns[names[number % 3]],
        )
        for number in range(QUESTIONS)
    ]
    Manifest.from_rows(rows, folder / "images", "bench").write(folder / "manifest.parquet")
    values = bench_values(folder) | {"batch_size": 2, "max_new_tokens": 2, "seeds": [0]}
    for adapter in values["students"][0]["adapters"]:
        del adapter["paths"][1]
    write_spec(folder / "spec.yaml", values)
    return folder


def asking(bench, kind=EvaluationRequest, task=None, finish=False, **changes):
    values = {
        "student": bench / "adapters" / "lora-0",
        "manifest": bench / "manifest.parquet",
        "batch_size": 2,
        "device": "cpu",
        "dtype": "bfloat16",
        "work": WorkRequest(threads=None if finish else 1, task=task, finish=finish),
    }
    if kind is EvaluationRequest:
        sampled = ("decode.temperature=1.5", "decode.seed=3")
        values |= {"decode": "nucleus", "overrides": sampled, "max_new_tokens": 4}
    return kind(**values | changes)


def command(bench, out, verb="evaluate", *more):
    """The same on the command line."""
    if verb == "compare":
        chosen = [str(bench / "spec.yaml")]
    else:
        chosen = ["--student", str(bench / "adapters" / "lora-0"), "--manifest", str(bench / "manifest.parquet")]
        chosen += ["--batch-size", "2", "--dtype", "bfloat16"]
    if verb == "evaluate":
        chosen += ["--decode", "nucleus", "--set", "decode.temperature=1.5", "--set", "decode.seed=3"]
        chosen += ["--max-new-tokens", "4"]
    return ["student", verb, *chosen, "--out", str(out), "--device", "cpu", "--threads", "1", "--json", *more]


@pytest.fixture(scope="module")
def alone(bench):
    """What one process writes."""
    run_evaluation(asking(bench), bench / "alone", Silent())
    run_grounding(asking(bench, GroundingRequest), bench / "ground", Silent())
    spec = load_comparison(bench / "spec.yaml")
    run_comparison(spec, bench / "compare", [], Silent(), device="cpu", work=WorkRequest(threads=1))
    return bench


@pytest.fixture(scope="module")
def forked(bench, forks):
    """Runs of several processes, and a task that is killed with SIGKILL; their exit codes and what they printed."""
    runs = {
        "two": (2, 0, command(bench, bench / "two")),
        "four": (4, 0, command(bench, bench / "four")),
        "ground-two": (2, 0, command(bench, bench / "ground-two", "ground")),
        "compare-two": (2, 0, command(bench, bench / "compare-two", "compare")),
        "killed": (1, 1, command(bench, bench / "tasks", "evaluate", "--task", "0/2")),
        "other": (1, 0, command(bench, bench / "tasks", "evaluate", "--task", "1/2")),
    }
    script, ended = Path(__file__).parents[2] / "run_command.py", {}
    for name, (processes, kill, arguments) in runs.items():
        ranks = forks.run(script, kill, *arguments, processes=processes)
        ended[name] = [(rank.code, rank.stdout) for rank in ranks]
    return ended


def bytes_of(folder, *names):
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("name", ["two", "four"])
def test_answers_of_several_processes_are_those_of_one(bench, alone, forked, name):
    assert [code for code, _ in forked[name]] == [0] * len(forked[name])
    names = ("predictions.parquet", "run.json")
    assert bytes_of(bench / name, *names) == bytes_of(bench / "alone", *names)
    first, *others = (printed for _, printed in forked[name])
    assert json.loads(first[first.index("{") :])["questions"] == QUESTIONS
    assert [printed for printed in others if "{" in printed] == [], "one process prints"
    assert sorted(path.name for path in (bench / name).iterdir()) == sorted(
        path.name for path in (bench / "alone").iterdir()
    )
    assert len(set(pl.read_parquet(bench / "alone" / "predictions.parquet")["prediction"])) > QUESTIONS // 2


def test_maps_of_two_processes_are_those_of_one(bench, alone, forked):
    assert [code for code, _ in forked["ground-two"]] == [0, 0]
    names = ("attention.npy", "grounding.parquet", "run.json")
    assert bytes_of(bench / "ground-two", *names) == bytes_of(bench / "ground", *names)
    assert not (bench / "ground-two" / "maps").exists()
    assert np.load(bench / "ground" / "attention.npy").shape == (QUESTIONS, 4, 9)


def test_cells_of_two_processes_are_those_of_one(bench, alone, forked):
    assert [code for code, _ in forked["compare-two"]] == [0, 0]
    assert cells(bench / "compare-two") == cells(bench / "compare")
    assert bytes_of(bench / "compare-two", "comparison.json") == bytes_of(bench / "compare", "comparison.json")


def cells(out):
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("predictions.parquet"))}
    assert len(found) == 4
    return found


def test_a_killed_task_is_redone_alone(bench, alone, forked, monkeypatch):
    """Task 0 of 2 has batches 0, 2 and 4; it was killed with SIGKILL after the first."""
    (killed, _), (ended, printed) = forked["killed"][0], forked["other"][0]
    assert (killed, ended) == (-9, 0)
    assert json.loads(printed[printed.index("{") :]) == {
        "out": str(bench / "tasks"),
        "task": "1/2",
        "batches_done": 3,
        "batches": 5,
    }
    out = bench / "tasks"
    missing = (
        r"tasks is unfinished: 2 of 5 batches are missing, of task 0/2 \(2 batches\): run this command with --task 0/2 "
        "instead of --finish, then with --finish again"
    )
    with pytest.raises(InputError, match=missing):
        run_evaluation(asking(bench, finish=True), out, Silent())
    progress = Notes()
    report = run_evaluation(asking(bench, task="0/2"), out, progress)
    assert (report.done, report.batches) == (5, 5)
    assert progress.notes[-1].endswith("with --finish instead of --task 0/2, without --threads, --workers and --engine")
    monkeypatch.setattr(batch_work, "load_student", None)
    run_evaluation(asking(bench, finish=True), out, Silent())
    names = ("predictions.parquet", "run.json")
    assert bytes_of(out, *names) == bytes_of(bench / "alone", *names)
    assert list(out.glob("answers*")) == []


def test_tasks_of_a_comparison_and_of_grounding(bench, alone, tmp_path, monkeypatch):
    spec = load_comparison(bench / "spec.yaml")

    def compare(**work):
        work = WorkRequest(threads=None if "finish" in work else 1, **work)
        return run_comparison(spec, tmp_path / "c", [], Silent(), device="cpu", work=work)

    compare(task="1/3")
    compare(task="0/3")
    with pytest.raises(InputError, match=r"6 of 20 batches are missing, of task 2/3 \(6 batches\): run this command"):
        compare(finish=True)
    compare(task="2/3")
    assert compare(finish=True).answered == 0
    assert cells(tmp_path / "c") == cells(bench / "compare")

    def ground(**work):
        return run_grounding(asking(bench, GroundingRequest, **work), tmp_path / "g", Silent())

    with pytest.raises(InputError, match=r"has no grounding run: run this command with --task I/N first"):
        ground(finish=True)
    ground(task="1/2")
    with pytest.raises(InputError, match=r"3 of 5 batches are missing, of task 0/2"):
        ground(finish=True)
    ground(task="0/2")
    ground(finish=True)
    names = ("attention.npy", "grounding.parquet", "run.json")
    assert bytes_of(tmp_path / "g", *names) == bytes_of(bench / "ground", *names)


@pytest.fixture(scope="module")
def half(bench):
    """Task 0 of 2 is done."""
    run_evaluation(asking(bench, task="0/2"), bench / "half", Silent())
    return bench / "half"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"overrides": ("decode.temperature=1.2",)}, r"- decoding\.settings\.temperature: recorded 1\.5, now 1\.2\n"),
        ({"student": "adapters/medalign-0"}, "adapter_fingerprint: recorded"),
        ({"dtype": "float32"}, "dtype: recorded 'bfloat16', now 'float32'"),
        ({"keep_lora_apart": True}, "lora: recorded 'merged', now 'apart'"),
        ({"batch_size": 3}, "batch_size: recorded 2, now 3"),
        ({"limit": 8}, "questions: recorded 9, now 8"),
        ({"work": WorkRequest(threads=2, task="1/2")}, "threads: recorded 1, now 2"),
    ],
)
def test_a_task_with_other_arguments_is_refused_by_name(bench, half, changes, named):
    if "student" in changes:
        changes = {"student": bench / changes["student"]}
    before = sorted(path.name for path in half.iterdir())
    with pytest.raises(InputError, match=rf"(?s)contains an evaluation with different settings.*{named}"):
        run_evaluation(asking(bench, task="1/2", **changes) if "work" not in changes else
                       asking(bench, **changes), half, Silent())  # fmt: skip
    assert sorted(path.name for path in half.iterdir()) == before


def test_a_task_of_another_version_is_refused_by_name(bench, half, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(half, out)
    other = {**batch_work.code_versions(), "torch": "9.9", "code": "another"}
    with monkeypatch.context() as patched:
        patched.setattr(conditions, "code_versions", lambda: other)
        with pytest.raises(
            InputError, match=r"answers-0-of-2.jsonl and this run have different versions: code \w+ and"
        ):
            run_evaluation(asking(bench, task="1/2"), out, Silent())
        patched.setattr(batch_work, "code_versions", lambda: other)
        (hidden,) = out.glob("answers-0-of-2.jsonl")
        kept = hidden.rename(tmp_path / "hidden")
        run_evaluation(asking(bench, task="1/2"), out, Silent())
    kept.rename(hidden)
    with pytest.raises(
        InputError, match=r"answers-0-of-2.jsonl and .*answers-1-of-2.jsonl have different .*torch .* and 9.9"
    ):
        run_evaluation(asking(bench, finish=True), out, Silent())


def test_the_number_of_threads_is_the_first_tasks(bench, half, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(half, out)
    run_evaluation(asking(bench, work=WorkRequest(task="1/2")), out, Silent())
    assert run_evaluation(asking(bench, work=WorkRequest(finish=True)), out, Silent()).run["threads"] == 1


def test_a_resumed_run_takes_what_tasks_have_done(bench, alone, half, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(half, out)
    assert run_evaluation(replace(asking(bench), resume=True), out, Silent()).resumed == 5
    assert bytes_of(out, "predictions.parquet") == bytes_of(bench / "alone", "predictions.parquet")


def test_two_files_that_disagree_are_refused(bench, half, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(half, out)
    lines = (out / "answers-0-of-2.jsonl").read_text().splitlines(keepends=True)
    changed = json.loads(lines[1]) | {"prediction": "something else"}
    (out / "answers-1-of-2.jsonl").write_text(lines[0] + json.dumps(changed) + "\n" + lines[2])
    with pytest.raises(InputError, match=r"answers-1-of-2.jsonl and another .* have different answers to question q0"):
        run_evaluation(asking(bench, finish=True), out, Silent())


def test_workers_give_the_answers_of_one_process(bench, alone, tmp_path):
    run_evaluation(asking(bench, work=WorkRequest(threads=1, workers=2)), tmp_path / "out", Silent())
    names = ("predictions.parquet", "run.json")
    assert bytes_of(tmp_path / "out", *names) == bytes_of(bench / "alone", *names)


@pytest.mark.parametrize("kind", [EvaluationRequest, GroundingRequest])
def test_a_run_that_fails_before_its_first_result_leaves_its_folder_free(bench, tmp_path, monkeypatch, kind):
    """The weights cannot be loaded: the same --out is free for the corrected command."""
    run = run_evaluation if kind is EvaluationRequest else run_grounding

    def broken(*_, **__):
        raise InputError("its weights are damaged")

    monkeypatch.setattr(batch_work, "load_student", broken)
    with pytest.raises(InputError, match="its weights are damaged"):
        run(asking(bench, kind), tmp_path / "out", Silent())
    assert not (tmp_path / "out").exists()


def test_options_that_contradict_each_other_are_refused(bench, tmp_path, monkeypatch):
    for arguments in (["--task", "2/2"], ["--task", "0/2", "--finish"]):
        done = CliRunner().invoke(app, command(bench, tmp_path / "out", "evaluate", *arguments))
        assert done.exit_code == 2, done.output
    with pytest.raises(SettingsError, match="--task and --finish are incompatible"):
        WorkRequest(task="0/2", finish=True).check(_Two())
    with pytest.raises(InputError, match=r"has no evaluation: run this command with --task I/N first"):
        run_evaluation(asking(bench, finish=True), tmp_path / "out", Silent())
    for work in (WorkRequest(workers=2), WorkRequest(engine="ray")):
        with pytest.raises(SettingsError, match="torchrun started 2 processes, which already share the work"):
            work.check(_Two())
    with pytest.raises(SettingsError, match="--finish needs only one process"):
        WorkRequest(finish=True).check(_Two())


class _Two:
    number = 2

"""The report of a run: written beside its results, again on request, and never in the way of the run."""

import json

import pytest
from command_tree import COMMANDS
from medalign.commands import options
from medalign.errors import InputError
from medalign.pipeline.reports.figures.figure_files import read_figure
from medalign.pipeline.reports.runs import run_report
from medalign.pipeline.reports.runs.run_report import try_run_report, write_run_report
from medalign.progress import Silent
from run_folders import write_evaluation, write_training

LOG = [{"step": step, "loss_lm": 1.0 / step} for step in (1, 2)]


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


@pytest.fixture
def run(tmp_path):
    return write_training(tmp_path / "run", LOG)


def test_the_report_and_its_figures_are_in_the_folder_of_the_run(run):
    kept = {path.name for path in run.iterdir()}
    assert write_run_report(run, Silent()) == run / "report.html"
    assert {path.name for path in run.iterdir()} == kept | {"report.html", "figures"}
    files = {"losses.parquet", "losses.png", "losses.svg"}
    assert {path.name for path in (run / "figures").iterdir()} == files
    assert read_figure(run / "figures" / "losses.parquet").table["y"].to_list() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"run.json": "{}", "answers.jsonl": ""}, "is not finished: run its command again with --resume"),
        ({"checkpoint-8/trainer_state.json": "{}"}, "unfinished training run"),
        ({"notes.txt": "x"}, "has no finished run of `medalign student train`"),
        ({"comparison.json": "{}"}, "--reanalyze"),
    ],
)
def test_a_killed_run_has_no_report(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    notes = Notes()
    assert try_run_report(tmp_path, notes) is None
    assert len(notes.lines) == 1
    assert expected in notes.lines[0]
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(InputError):
        write_run_report(tmp_path, Silent())


@pytest.mark.parametrize("error", [InputError("the mask is gone"), ZeroDivisionError("a defect")])
def test_a_report_that_fails_does_not_lose_the_run(run, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(run_report, "write_page", fail)
    monkeypatch.delenv("MEDALIGN_NO_REPORT")
    notes = Notes()
    assert options.write_run_page(run, notes) == {"report": None}
    reason = str(error) if isinstance(error, InputError) else f"ZeroDivisionError: {error}"
    assert notes.lines == [f"the report could not be written: {reason}; `medalign report make {run}` writes it again"]


def test_reports_can_be_switched_off(run, monkeypatch):
    monkeypatch.setattr(run_report, "write_page", lambda path, *rest: path.write_text("page"))
    for value, written in (("1", False), ("0", True), ("", True)):
        monkeypatch.setenv("MEDALIGN_NO_REPORT", value)
        assert options.write_run_page(run, Silent())["report"] == (str(run / "report.html") if written else None)


def test_report_make_writes_it_again_with_a_moved_manifest(tmp_path, capsys):
    run = write_evaluation(tmp_path, [("report", "clear", "clear lungs", "end")] * 4)  # no score, so no figure
    (tmp_path / "m.parquet").rename(tmp_path / "moved.parquet")
    words = ["report", "make", str(run), "--manifest", str(tmp_path / "moved.parquet"), "--json"]
    COMMANDS.main(words, prog_name="medalign", standalone_mode=False)
    printed = json.loads(capsys.readouterr().out)
    html = (run / "report.html").read_text()
    assert printed == {"report": str(run / "report.html"), "bytes_in_report": len(html.encode())}
    assert html.count("data:image/jpeg") == 4


def test_report_make_needs_to_know_whose_images_a_root_has(tmp_path, refusal):
    run = write_evaluation(tmp_path)
    (run / "inputs.json").unlink()
    assert "pass --manifest with --root" in refusal("report", "make", str(run), "--root", str(tmp_path))

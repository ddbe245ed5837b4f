"""The report of a run: written beside its results, again on request, and never in the way of the run."""

import json

import pytest
from command_tree import COMMANDS
from figure_examples import one_of_each
from medalign.commands import options
from medalign.errors import InputError
from medalign.pipeline.data import saved_tables
from medalign.pipeline.reports.figures.figure_files import read_figure, write_figures
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
        notes = Notes()
        assert options.write_run_page(run, notes)["report"] == (str(run / "report.html") if written else None)
        said = f"no report was written, because MEDALIGN_NO_REPORT is set; `medalign report make {run}` writes it"
        assert notes.lines == ([] if written else [said])


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


def test_figures_that_a_page_no_longer_has_are_removed_and_no_file_of_the_user(run):
    write_run_report(run, Silent())
    figures = run / "figures"
    old = one_of_each()[0]
    write_figures(figures, [old])
    (figures / "notes.svg").write_text("mine")
    (figures / "losses copy.parquet").write_bytes((figures / "losses.parquet").read_bytes())
    saved_tables.write(figures / "mine.parquet", old.table)
    (figures / "damaged.parquet").write_bytes(b"PAR1")
    write_run_report(run, Silent())
    own = {f"losses.{ending}" for ending in ("parquet", "png", "svg")}
    kept = {"notes.svg", "losses copy.parquet", "mine.parquet", "damaged.parquet"}
    assert {path.name for path in figures.iterdir()} == own | kept


@pytest.mark.parametrize(("old", "new"), [("<h1>", "<h1>My "), ('content="medalign ', 'content="pandoc ')])
def test_a_page_that_the_user_edited_is_not_replaced(run, capsys, old, new):
    page = write_run_report(run, Silent())
    write_run_report(run, Silent())
    page.write_text(page.read_text().replace(old, new))
    before = page.read_bytes()
    assert COMMANDS.main(["report", "make", str(run)], standalone_mode=False) == 3
    assert "rename it or remove it" in capsys.readouterr().err.replace("\n", " ")
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"demo-plan.json": '{"seed": 3}'}, "`medalign demo --out {out} --seed 3` writes its page again"),
        ({"inspection.json": "{}"}, "run `medalign student inspect` again with a new --out"),
        ({"attend.json": "{}"}, "run `medalign student attend` again with a new --out"),
        ({"run.json": '{"students": {}}'}, "run `medalign student inspect` again with another --out"),
        ({"preview.json": "{}"}, "run `medalign teacher preview` again with a new --out"),
    ],
)
def test_report_make_names_the_command_that_makes_another_page(tmp_path, files, command):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as refused:
        write_run_report(tmp_path, Silent())
    assert command.format(out=tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("metrics.json", lambda values: values.pop("finishes")),
        ("metrics.json", lambda values: values["scores"].update(strict=[])),
        ("metrics.json", lambda values: values["run"].update(splits=None)),
    ],
)
def test_damaged_results_are_refused_with_the_folder_and_what_to_do(tmp_path, file, change):
    run = write_evaluation(tmp_path)
    values = json.loads((run / file).read_text())
    change(values)
    (run / file).write_text(json.dumps(values))
    with pytest.raises(InputError) as refused:
        write_run_report(run, Silent())
    assert str(run) in str(refused.value)
    assert "again" in str(refused.value)
    assert not (run / "report.html").exists()

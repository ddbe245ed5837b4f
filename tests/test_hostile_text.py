"""Whatever data, file names, servers or exceptions say, no output of the program passes it to a terminal as it is."""

import io
import json
import sys
import unicodedata
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from medalign.cli import app
from medalign.errors import InputError
from medalign.pipeline.evaluation.comparison.render import as_latex, as_markdown, show_comparison
from medalign.pipeline.evaluation.comparison.table_entries import Entry, Grid
from medalign.pipeline.evaluation.grounding.grounding_table import show_grounding
from medalign.pipeline.inspection.inspect_students import InspectionReport
from medalign.pipeline.inspection.inspection_table import show_inspection
from medalign.pipeline.row_output import Rows, show_in_format
from medalign.pipeline.terminal import Bars, console, print_json, show_rows, show_summary
from medalign.plain_text import SafeStream, message, shown, visible, without_secrets
from stores import name_of, write_store
from typer.testing import CliRunner

SECRET = "do-not-print-me"
CONTROLS = "\r\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\x7f\u202egnp\u2066\u200f\u2028\u2029\x85\ufeff\U000e0041"
MARKUP = "[red]x[/red][link=https://h]y[/link]:bomb:"
URLS = f"https://me:{SECRET}@h/x?X-Amz-Signature={SECRET} simplecache::s3://k:{SECRET}@b sig={SECRET}"
HOSTILE = f"{CONTROLS}\nerror: forged{MARKUP} {URLS}"

BIDIRECTIONAL = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""Unicode Standard Annex 9, table 1: explicit formatting characters."""


HARMFUL = {
    *({*range(0x20), *range(0x7F, 0xA0)} - {0x0A, 0x09}),  # ECMA-48: C0, DEL, C1
    *BIDIRECTIONAL,
    *(0x2028, 0x2029, 0xFEFF, 0xE0001),
    *range(0xE0020, 0xE0080),
    *range(0xD800, 0xE000),
}


def harms(text: str) -> set[str]:
    """Characters that a terminal obeys or that reorder what is read: the standards' lists, not the code's."""
    return {hex(ord(letter)) for letter in text if ord(letter) in HARMFUL}


def assert_harmless(text: str) -> None:
    assert harms(text) == set()
    assert SECRET not in text
    assert "\nerror: forged" not in text, "data begins no line of ours"


# ---- the functions


def test_every_character_is_kept_or_shown():
    for code in (*range(0x11200), *range(0x1D000, 0x1D200), *range(0xE0000, 0xE0200)):
        letter = chr(code)
        if (result := visible(letter)) != letter:
            assert result.isascii()
            assert result.isprintable()
            assert result.encode().decode("unicode_escape") == letter
            assert unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else:
            assert not harms(letter)
    assert (
        visible("naïve 胸部 صدر e\u0301 👩\u200d⚕️ a\u00adb\n", lines=True)
        == "naïve 胸部 صدر e\u0301 👩\u200d⚕️ a\u00adb\n"
    )


URLS_AND_SHOWN = [
    ("https://u:p@h/x", "https://***@h/x"),
    ("https://u:p/w@h", "https://***@h"),
    ("https://u:p@ss/w@rd@host/x y", "https://***@host/x y"),
    ("https:/u:p@h/x", "https:/***@h/x"),
    ("zip://a::https://u:p@h", "zip://***@h"),
    ("s3://b/x?X-Amz-Signature=abc&y=2", "s3://b/x?***"),
    ("x?sv=1&sig=ab%2F&b", "x?sv=1&sig=***&b"),
    ("AWS_SECRET_ACCESS_KEY=abc", "AWS_SECRET_ACCESS_KEY=***"),
    ("password='abc'", "password='***'"),
    ("Authorization: Bearer abc", "Authorization: Bearer ***"),
    ("hf://datasets/lab/name@rev/x", "hf://datasets/lab/name@rev/x"),
    ("http://127.0.0.1:8080/x@y", "http://127.0.0.1:8080/x@y"),
    ("a: b = c, me@host.org", "a: b = c, me@host.org"),
]


@pytest.mark.parametrize(("text", "expected"), URLS_AND_SHOWN)
def test_secrets_of_urls_are_hidden_and_nothing_else(text, expected):
    assert without_secrets(text) == expected
    assert without_secrets(expected) == expected


def test_lines_of_a_message_after_the_first_are_indented():
    assert message("two problems:\n- a\n- b") == "two problems:\n  - a\n  - b"
    assert shown("a\nb") == r"a\nb"


# ---- every command


class Report:
    """Stands for the report of any command; everything in it is hostile."""

    was_finished = True
    answer = HOSTILE.replace("\n", " ")  # an answer may have several lines
    warnings = (HOSTILE,)
    result = SimpleNamespace(interrupted=False)
    finish = HOSTILE

    def summary(self) -> dict[str, Any]:
        return {
            f"a{CONTROLS[-3:]}": HOSTILE,
            "path": Path(HOSTILE),
            "nested": {"a\x1b[2J": HOSTILE},
            "several": [HOSTILE],
        }

    def sentences(self) -> list[str]:
        return [HOSTILE]

    def ending(self) -> str:
        return HOSTILE

    def example_lines(self) -> list[str]:
        return [HOSTILE]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None


STUDENT = ("--student", "s", "--manifest", "m", "--out", "o")
COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "demo": ((), "demo.demo.run_demo"),
    "doctor": ((), "doctor.doctor.examine"),
    "data import": (("folder", "a", "--out", "o"), "data.import_manifest.import_manifest"),
    "data check": (("m",), "data.data_check.check_manifest"),
    "data phantom": (("--out", "o"), "data.phantoms.phantom_dataset.make_phantoms"),
    "data make-key": (("k",), "data.make_key.make_key_file"),
    "teacher preview": (("s",), "stores.preview.preview.preview_store"),
    "teacher list": ((), "extraction.teacher_list.show_teachers"),
    "teacher extract": (("--out", "o", "--teacher", "t", "--weights", "w"), "extraction.extract.run_extraction"),
    "store extend": (("s", "--weights", "w"), "extraction.extract.run_extension"),
    "teacher finish": (("s",), "extraction.extract.finish_store"),
    "store info": (("s",), "stores.verify.describe_store"),
    "store verify": (("s",), "stores.verify.verify_store"),
    "store repair": (("s",), "stores.repair.repair_store"),
    "store convert": (("s",), "stores.convert_and_sign.convert_store"),
    "store sign": (("s", "--key", "k"), "stores.convert_and_sign.sign_store"),
    "store subset": (("s", "--hashes", "h", "--out", "o"), "stores.share.subset_store"),
    "store merge": (("a", "b", "--out", "o"), "stores.share.merge_stores"),
    "store pack": (("s", "--out", "o"), "stores.share.pack_store"),
    "store unpack": (("f", "--out", "o"), "stores.share.unpack_store"),
    "store push": (("s", "d"), "stores.share.push_store"),
    "store pull": (("s", "--out", "o"), "stores.share.pull_store"),
    "student init": (("--llm", "l", "--vision", "v", "--out", "o"), "model_folders.make_student"),
    "student convert": (("s", "--out", "o"), "model_folders.convert_student"),
    "student export": (("a", "--out", "o"), "model_folders.export_student"),
    "student train": (("c", "--dry-run"), "training.plan.plan_training"),
    "student align": (("c", "--dry-run"), "align.align_plan.plan_align"),
    "student generate": (("--student", "s", "--image", "i", "--question", "q"), "evaluation.generate.ask"),
    "student attend": (
        ("--student", "s", "--image", "i", "--question", "q", "--out", "o"),
        "attention.attend.run_attend",
    ),
    "student inspect": (STUDENT, "inspection.inspect_students.run_inspection"),
    "student evaluate": (STUDENT, "evaluation.evaluate.run_evaluation"),
    "student decodings": ((), "evaluation.decoding_list.list_decodings"),
    "student compare": (("c", "--out", "o"), "evaluation.comparison.spec.load_comparison"),
    "student ground": (STUDENT, "evaluation.grounding.ground.run_grounding"),
    "study": (("s", "--dry-run"), "studies.study_plan.plan_study"),
    "config list": ((), "shipped_files.show_shipped_files"),
    "config show": (("n",), "shipped_files.show_shipped"),
    "config copy": (("n",), "shipped_files.copy_shipped"),
    "report make": (("o",), "reports.runs.run_report.make_run_report"),
    "report draw": (("o",), "reports.figures.figure_files.draw_again"),
    "assets list": ((), "assets.asset_registry.list_assets"),
    "assets add": (("n", "f"), "assets.asset_registry.add_asset"),
    "assets verify": ((), "assets.asset_registry.verify_assets"),
}
"""Of every command its arguments, and the function below medalign.pipeline that does its work."""

OWN_REPORTS = ("demo", "doctor", "teacher list", "student decodings", "student attend", "student compare",
               "student ground", "student inspect",
               "assets list", "assets verify", "config list", "config show")  # fmt: skip
"""Commands whose result is not shown by `show_report`; theirs are below."""


def commands(group: Any, names: tuple[str, ...] = ()) -> list[str]:
    if not hasattr(group, "commands"):
        return [" ".join(names)]
    return [found for name, each in group.commands.items() for found in commands(each, (*names, name))]


def test_the_table_has_every_command():
    """A new command is shown to print nothing hostile before it is merged: add it to COMMANDS."""
    assert sorted(COMMANDS) == sorted(commands(typer.main.get_command(app)))
    assert len(COMMANDS) >= 23


def typed(name: str, *more: str) -> str:
    result = CliRunner().invoke(app, [*name.split(), *COMMANDS[name][0], *more])
    return f"{result.stdout}\n{result.stderr}"


@pytest.fixture
def work(monkeypatch):
    """Replaces what a command does."""
    monkeypatch.setattr("medalign.pipeline.training.resume.load_run_settings", lambda *_, **__: None)
    monkeypatch.setattr("medalign.pipeline.align.align_settings.load_align_settings", lambda *_, **__: None)
    monkeypatch.setattr("medalign.pipeline.studies.study_spec.load_study", lambda *_, **__: None)

    def replace(name: str, function: Any) -> None:
        monkeypatch.setattr(f"medalign.pipeline.{COMMANDS[name][1]}", function)

    return replace


@pytest.mark.parametrize("name", COMMANDS)
def test_errors_of_every_command_are_harmless(work, name):
    def fail(*arguments: Any, **options: Any) -> Any:
        for progress in (*arguments, *options.values()):
            if hasattr(progress, "note"):
                progress.start(HOSTILE, 1)
                progress.note(HOSTILE)
        warnings.warn(HOSTILE.replace("\n", " "), UserWarning, stacklevel=1)
        raise InputError(HOSTILE)

    work(name, fail)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda text, *_, **__: print(text, file=sys.stderr)
        output = typed(name)
    assert "error: " in output
    assert "owned" in output
    assert_harmless(output)


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in OWN_REPORTS])
def test_results_of_every_command_are_harmless(work, name, as_json):
    def succeed(*arguments: Any, **options: Any) -> Any:
        for progress in (*arguments, *options.values()):
            if hasattr(progress, "note"):
                progress.start(HOSTILE, 1)
                progress.note(HOSTILE)
        return Report()

    work(name, succeed)
    output = typed(name, *(["--json"] if as_json else []))
    assert "owned" in output, output
    assert_harmless(output)
    if not as_json:
        assert MARKUP in output.replace("\n", "").replace(" ", ""), "markup is text"
    else:
        values = json.loads(output[output.index("{\n") : output.rindex("}") + 1])
        assert values["path"].startswith(CONTROLS), "JSON escapes, and nothing is lost but secrets"


GRID = Grid(
    title=HOSTILE,
    groups=((HOSTILE, 1),),
    header=(HOSTILE,),
    rows=((Entry(text=HOSTILE, best=True, starred=True),), (Entry(text=HOSTILE),)),
    notes=(HOSTILE,),
)


INSPECTION = InspectionReport(
    out=Path(HOSTILE),
    arms=(HOSTILE,),
    images=1,
    verdicts={HOSTILE: {HOSTILE: HOSTILE}},
    findings=(HOSTILE,),
    warnings=(HOSTILE,),
)


def test_results_of_the_other_commands_are_harmless(capsys, monkeypatch, tmp_path):
    summary = {"warnings": [HOSTILE], "tables": [HOSTILE]}
    grounding = SimpleNamespace(
        findings=SimpleNamespace(images=1, chance=dict.fromkeys(measures(), 0.5), layers=()),
        questions=1,
        aligned_layers=(),
        out=Path(HOSTILE),
        against=Path(HOSTILE),
        left_out={HOSTILE: 1},
        summary=lambda: {HOSTILE: HOSTILE},
    )
    for as_json in (False, True):
        show_comparison(summary, [GRID], as_json=as_json)
        show_grounding(grounding, as_json=as_json)
        show_rows(HOSTILE, (HOSTILE, "b"), [(HOSTILE, 1)], as_json=as_json)
        show_in_format("jsonl" if as_json else "csv", lambda: Rows((HOSTILE, "b"), [(HOSTILE, [HOSTILE])]), show_rows)
        show_summary(HOSTILE, {HOSTILE: {HOSTILE: HOSTILE}}, as_json=as_json)
        show_inspection(INSPECTION, as_json=as_json)
    print_json({HOSTILE: [HOSTILE]})
    output = "".join(capsys.readouterr())
    assert "owned" in output
    assert_harmless(output)
    monkeypatch.setenv("MEDALIGN_WEIGHTS", str(tmp_path / (CONTROLS + MARKUP)))
    monkeypatch.setenv("MEDALIGN_ASSETS", str(tmp_path / (CONTROLS + MARKUP)))
    for name in ("doctor", "assets list", "teacher list", "student decodings", "config list"):
        assert_harmless(typed(name))


def measures() -> list[str]:
    from medalign.pipeline.evaluation.grounding.measures import MEASURES

    return [measure.name for measure in MEASURES]


def test_tables_in_files_are_harmless():
    page = as_markdown(HOSTILE, [HOSTILE], [GRID])
    assert harms(page) == set()
    assert "[link" not in page.replace(r"\[link", "")
    assert "\nerror: forged" not in page
    assert harms(as_latex([GRID])) == set()


# ---- what is not a command's report


def test_wrong_options_are_harmless():
    for arguments in (
        ["store", "info", HOSTILE],
        ["teacher", HOSTILE],
        ["teacher", "extract", "--out", "o", "--teacher", "t", "--weights", "w", "--dtype", HOSTILE],
        ["store", "pull", "x", "--out", HOSTILE],
        ["store", "pull", f"https://me:{SECRET}@h/x", "--out", f"https://me:{SECRET}@h/y"],
        ["store", "pull", "x", "--out", f"zip://a::https://me:{SECRET}@h/y"],
        ["student", "train", HOSTILE],
        ["data", "check", HOSTILE],
    ):
        result = CliRunner().invoke(app, arguments)
        output = result.stdout + result.stderr
        assert result.exit_code not in (0, 1)
        assert_harmless(output)


@pytest.mark.parametrize(
    "arguments",
    [
        ("teacher", "extract", "--teacher", "t", "--weights", "w", "--images", "i", "--out"),
        ("data", "import", "folder", "a", "--out"),
        ("data", "phantom", "--out"),
        ("student", "evaluate", "--student", "s", "--manifest", "m", "--out"),
        ("student", "init", "--llm", "l", "--vision", "v", "--out"),
        ("demo", "--out"),
        ("teacher", "finish"),
    ],
)
def test_no_path_is_a_url(arguments, tmp_path, monkeypatch):
    """A URL where a folder is meant makes no folder called s3: on this machine."""
    monkeypatch.chdir(tmp_path)
    for url in ("s3://bucket/x", f"https://me:{SECRET}@h/x"):
        result = CliRunner().invoke(app, [*arguments, url])
        assert result.exit_code == 2
        assert "is a URL, but a local path is needed" in result.stderr
        assert SECRET not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_bugs_end_in_a_harmless_traceback(monkeypatch):
    """The traceback is printed by Python, after the command line has ended."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    from medalign.plain_text import protect_streams

    monkeypatch.setattr(sys, "stdout", sys.stdout)
    protect_streams()
    try:
        raise RuntimeError(HOSTILE)
    except RuntimeError as error:
        sys.__excepthook__(type(error), error, error.__traceback__)
    assert "owned" in stream.getvalue()
    assert harms(stream.getvalue()) == set()
    assert SECRET not in stream.getvalue()


def test_bars_of_other_libraries_are_drawn():
    stream = io.StringIO()
    safe = SafeStream(stream)
    safe.write("\r 50%|#####     | 1/2")
    safe.write("\r 50%|\x1b[2J")
    safe.write("text\rover it\n")
    assert stream.getvalue() == "\r 50%|#####     | 1/2\\r 50%|\\x1b[2Jtext\\rover it\n"


def test_bars_on_a_real_terminal_obey_only_rich(monkeypatch):
    """Labels, notes, and what others print while a bar is drawn."""
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", SafeStream(terminal))
    monkeypatch.setattr(sys, "stderr", SafeStream(terminal))
    output = console(stderr=True)
    output._force_terminal = True
    with Bars(output) as bars:
        bars.start(HOSTILE, 2)
        bars.note(HOSTILE)
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
        bars.advance()
    written = terminal.getvalue()
    assert "owned" in written
    assert "\x1b[" in written, "it was a terminal"
    for sequence in ("\x1b]0;", "\x1b]8;", "\x1b[2J", "\x9b", "\u202e", "\u2028", "\x07", "\x08", SECRET):
        assert sequence not in written


def test_what_a_store_says_of_itself_is_harmless(tmp_path):
    store = write_store(tmp_path / "s.zarr", range(3), title="a" + CONTROLS + MARKUP, licence="b" + CONTROLS)
    (tmp_path / "h.txt").write_text(name_of(1))
    (store / ("x" + CONTROLS)).write_text("a file that nobody wrote")
    for arguments in (
        ("info", store),
        ("verify", store),
        ("verify", "--quick", store),
        ("subset", store, "--hashes", tmp_path / "h.txt", "--out", tmp_path / "part.zarr"),
        ("pack", store, "--out", tmp_path / ("p" + CONTROLS)),
        ("unpack", tmp_path / ("p" + CONTROLS), "--out", tmp_path / ("u" + CONTROLS)),
        ("push", store, tmp_path / ("q" + CONTROLS)),
        ("pull", tmp_path / ("q" + CONTROLS), "--out", tmp_path / ("r" + CONTROLS)),
    ):
        for more in ((), ("--json",)):
            result = CliRunner().invoke(app, ["store", *map(str, arguments), *more])
            assert result.stdout + result.stderr
            assert_harmless(result.stdout + result.stderr)

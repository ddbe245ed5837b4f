"""With --json, a command that fails before its report prints its error as the one JSON object."""

import json

import pytest
from command_tree import COMMANDS
from medalign.commands.base.error_output import wants_json
from test_unknown_options import commands


@pytest.fixture
def type_words(capsys):
    """Type a command line as a program; its exit code or error, stdout and stderr."""

    def run(words):
        with pytest.raises((SystemExit, ValueError)) as ended:
            COMMANDS.main(words, prog_name="medalign")
        return getattr(ended.value, "code", ended.value), *capsys.readouterr()

    return run


def test_every_command_and_group_prints_its_errors_as_json(type_words):
    for path, _ in commands():
        code, out, err = type_words([*path, "--xqzw", "--json"])
        assert code == 2
        told = json.loads(out)
        assert set(told) == {"error", "exit_code"}, path
        assert told["exit_code"] == 2
        assert err.strip() == f"error: {told['error']}"
        assert type_words([*path, "--xqzw"])[1] == ""


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("store info missing.zarr --json", 4, "missing.zarr is not a teacher store"),
        ("data check missing.parquet --json", 3, "missing.parquet"),
        ("store info --json", 2, "Missing argument"),
        ("store verify a.zarr --seed 1x --json", 2, "--seed"),
        ("student decodings --format json --xqzw", 2, "--xqzw"),
        ("student decodings --format=json --xqzw", 2, "--xqzw"),
    ],
)
def test_errors_of_every_kind_are_the_one_object(line, code, words, type_words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, out, err = type_words(line.split())
    told = json.loads(out)
    assert (found, told["exit_code"]) == (code, code)
    assert words in told["error"]
    assert words in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("three legs"), 1, "ValueError: three legs"),
        (OSError(28, "No space left on device", "a.bin"), 1, "a.bin: No space left on device"),
        (PermissionError(13, "Permission denied", "a.bin"), 3, "a.bin: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
    ],
)
def test_bugs_full_disks_and_ctrl_c_too(error, code, words, type_words, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr("medalign.pipeline.doctor.doctor.examine", fail)
    ended, out, _ = type_words(["doctor", "--json"])
    assert ended == (error if isinstance(error, ValueError) else code), "only a bug has a traceback"
    assert json.loads(out) == {"error": words, "exit_code": code}


def test_an_error_after_the_report_adds_nothing_to_it(type_words, monkeypatch):
    monkeypatch.setattr("medalign.pipeline.doctor.doctor.examine", lambda: None)

    def show_and_fail(report, as_json):
        from medalign.pipeline.terminal import print_json

        print_json({"report": 1})
        raise ValueError("late")

    monkeypatch.setattr("medalign.pipeline.doctor.doctor.show_doctor", show_and_fail)
    assert json.loads(type_words(["doctor", "--json"])[1]) == {"report": 1}


def test_json_is_an_option_and_not_a_value_after_two_hyphens():
    assert wants_json(["store", "info", "--json"])
    assert not wants_json(["store", "info", "--", "--json"])
    assert not wants_json(["student", "decodings", "--format", "jsonl"])
    assert not wants_json(["student", "compare", "json"])

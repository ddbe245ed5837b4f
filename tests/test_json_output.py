"""`--json` prints one JSON document regardless of the text in it, and its strings contain no secrets."""

import io
import itertools
import json
import sys

import pytest
from medalign.pipeline.terminal import as_json_text, print_json
from medalign.plain_text import SafeStream, protect_streams

SECRET = "hunter2"
QUOTED = (
    f'"https://host/a?sig={SECRET}"',
    f'password="{SECRET}"',
    f'token={SECRET}"',
    f'Authorization: "Bearer {SECRET}"',
    f"api_key={SECRET}\\",
    f"https://user:{SECRET}@host/a?b\\",
    f'"aws_secret_access_key={SECRET}"\n"b"',
)
HARMLESS = ('Is "this" a lesion?', "a\\", "50 % = half", "pi\u00f1ata \U0001f9e0 \ud800", "\x1b[31m\x7f\u2028", "")


def printed(values, monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", SafeStream(output))
    print_json(values)
    return output.getvalue()


@pytest.mark.parametrize("text", QUOTED)
def test_quotation_marks_beside_a_secret_stay_json(text, monkeypatch):
    values = {"answer": text, text: [text, {"inner": text}], "last": "kept"}
    for document in (as_json_text(values), printed(values, monkeypatch)):
        loaded = json.loads(document)
        assert SECRET not in document
        assert "***" in loaded["answer"]
        assert len(loaded) == 3
        assert loaded["last"] == "kept"
        assert document.isascii()


def test_text_without_secrets_is_printed_unchanged(monkeypatch):
    values = {f"{first} {second}": first for first, second in itertools.permutations(HARMLESS, 2)}
    assert json.loads(printed(values, monkeypatch)) == values


@pytest.mark.parametrize(("encoding", "expected"), [("ascii", rb"a \xfc \u0416"), ("latin-1", b"a \xfc \\u0416")])
def test_names_that_the_terminal_cannot_show_are_escaped(encoding, expected, monkeypatch):
    """With LANG=C or PYTHONIOENCODING=ascii, a path with an umlaut ended in a traceback."""
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding, write_through=True))
    monkeypatch.setattr(sys, "stderr", None)
    protect_streams()
    print("a \u00fc \u0416", end="")
    assert output.getvalue() == expected

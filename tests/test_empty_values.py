"""An empty value, as of a shell variable that is not set, is an error, and never the current folder."""

import pytest

LINES = (
    ("store", "info", ""),
    ("store", "verify", ""),
    ("store", "merge", "a.zarr", "", "--out", "b.zarr"),
    ("store", "push", "a.zarr", ""),
    ("store", "repair", "", "--weights", "w"),
    ("teacher", "extract", "--teacher", "phantom-tiny", "--weights", "w", "--images", "", "--out", "s.zarr"),
    ("teacher", "extract", "--teacher", "phantom-tiny", "--weights=", "--images", "i", "--out", "s.zarr"),
    ("student", "train", ""),
    ("student", "train", "c.yaml", "--out", ""),
    ("student", "evaluate", "--student", "", "--manifest", "m", "--out", "r"),
    ("student", "generate", "--student", "s", "--image", "a.png", "--image", "", "--question", "Is it?"),
    ("data", "import", "folder", "", "--out", "m.parquet"),
    ("config", "copy", "phantom", "--out", ""),
    ("demo", "--out", ""),
    ("assets", "add", "wordnet", ""),
)


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_an_empty_value_is_named(line, refusal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(*line)
    index = next(number for number, word in enumerate(line) if word == "" or word.endswith("="))
    before = line[index - 1]
    option = line[index].removesuffix("=") or (before if before.startswith("--") else "")
    name = message.removeprefix("error: ").partition(" is empty: pass a value (is a shell variable not set?)")[0]
    assert name == option if option else name.isupper(), message
    assert list(tmp_path.iterdir()) == []

"""Commands in messages can be typed as they are printed, whatever the names of files and folders are."""

import ast
import shlex
from pathlib import Path

import pytest
from medalign.commands.next_steps import show_next
from medalign.errors import MedalignError
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.shipped_files import copy_shipped
from medalign.plain_text import as_typed
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.format.keyed_hashes import read_key
from stores import write_store

ROOT = Path(__file__).parents[1]
ROOMS = ("api", "commands", "pipeline", "student", "teacher_cache")
SOURCES = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]
NAMES = ("a b", "it's", "-x", "--out", "$HOME", "a;b", "\u00fcber~", "(1)")
WORDS = {
    "quick",
    "plan.images",
    "plan.phantoms",
    "plan.anchors",
    "plan.shift",
    "plan.seed",
    "GRID",
    "BATCH",
    "LONGEST_ANSWER",
}
"""Values that are numbers or written in the source, and not names from outside."""
STARTS = ("medalign data ", "medalign store ", "medalign teacher ", "medalign student ", "chmod ")


def commands_in(path):
    """The values in the commands of the f-strings of a file: between grave accents, or the whole string."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            inside, text = str(getattr(node.values[0], "value", "")).startswith(STARTS), ""
            for part in node.values:
                if isinstance(part, ast.Constant):
                    for piece in str(part.value).replace("`", "\0`\0").split("\0"):
                        inside, text = (not inside, "") if piece == "`" else (inside, text + piece)
                elif inside and text.startswith(STARTS):
                    yield node.lineno, ast.unparse(part.value)


def test_every_name_in_a_command_is_quoted():
    files = [path for path in SOURCES if any(start in path.read_text() for start in STARTS)]
    values = [(path.relative_to(ROOT).as_posix(), *value) for path in files for value in commands_in(path)]
    assert len(values) > 30
    bare = [value for value in values if not value[2].startswith("as_typed(") and value[2] not in WORDS]
    assert bare == []


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_word_and_no_option(name):
    (word,) = shlex.split(as_typed(name))
    assert Path(word) == Path(name)
    assert not word.startswith("-")


@pytest.mark.parametrize("name", NAMES[:3])
def test_next_steps_and_remedies_name_the_file(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (word,) = {name, f"./{name}"} & {shlex.split(as_typed(name))[0]}
    show_next("train", as_json=False, adapter=Path(name), manifest=Path(name))
    assert shlex.split(capsys.readouterr().out.split("`")[1]).count(word) == 2
    assert word in shlex.split(str(copy_shipped("phantom", Path(name)).summary()["next"]))
    write_store(tmp_path / "stores" / name, range(2))
    monkeypatch.chdir(tmp_path / "stores")
    calls = (
        lambda: Manifest.read(f"{name}.parquet"),
        lambda: open_store(name)["0" * 64],
        lambda: read_key(Path(f"{name}.key")),
    )
    for call, target in zip(calls, (f"{word}.parquet", word, f"{word}.key"), strict=True):
        with pytest.raises(MedalignError) as caught:
            call()
        assert target in shlex.split(str(caught.value).split("`")[-2])


def test_a_copy_replaces_neither_a_link_nor_a_folder(tmp_path):
    link, folder = tmp_path / "link.yaml", tmp_path / "out"
    link.symlink_to("missing.yaml")
    (folder / "phantom.yaml").mkdir(parents=True)
    with pytest.raises(MedalignError, match=r"link\.yaml exists: pass another --out, or --force"):
        copy_shipped("./configs/phantom.yaml", link)
    assert link.is_symlink()
    with pytest.raises(MedalignError, match=r"out/phantom\.yaml is a folder: pass another --out$"):
        copy_shipped("phantom", folder, force=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link.yaml", "out", "phantom.yaml"]


def test_names_are_quoted_in_one_place():
    """A name that is quoted twice is another name."""
    quoting = [path.relative_to(ROOT).as_posix() for path in SOURCES if "shlex.quote" in path.read_text()]
    assert sorted(quoting) == ["commands/base/command_group.py", "plain_text.py"]

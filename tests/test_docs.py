"""What README and docs say exists: links, commands with their options, settings, tables of presets and teachers."""

import re
import shlex
from pathlib import Path

import pytest
from command_tree import COMMANDS
from medalign.pipeline.training.settings import PRESETS, Settings
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
ROOMS = ("api", "commands", "pipeline", "teacher_cache", "student")
PYTHON_FILES = [ROOT / "cli.py", *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def typed_lines(text: str) -> list[str]:
    """Whole command lines in code blocks, without comments and pipes; a backslash goes on on the next line."""
    blocks = "\n".join(FENCE.findall(text)).replace("\\\n", " ")
    lines = [line.removeprefix("$ ").split("#")[0].split(" | ")[0].strip() for line in blocks.splitlines()]
    return [line for line in lines if line.startswith("medalign ")]


def commands_in(text: str) -> list[str]:
    """Commands in code blocks and between backticks; `store info | verify` is two commands."""
    found = typed_lines(text)
    for line in re.findall(r"`(medalign [^`\n]*)`", FENCE.sub("", text)):
        first, *others = line.split(" | ")
        found.append(first)
        found += [" ".join([*first.split()[:2], other]) for other in others]
    return found


def check_command(line: str) -> None:
    """Walk from group to group; then every option must be one of the command's own."""
    words = shlex.split(line)[1:]
    command = COMMANDS
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        if not re.fullmatch(r"[a-z-]+", words[0]):
            break  # COMMAND, ... or an example's placeholder
        assert words[0] in command.commands, f"{line!r}: no command {words[0]}"
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
    assert not unknown, f"{line!r}: no option {unknown}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page):
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_on_pages_exist(page):
    for line in commands_in(page.read_text()):
        check_command(line)


def test_the_pages_do_have_links_and_commands():
    text = "".join(page.read_text() for page in PAGES)
    assert len(LINK.findall(text)) > 15
    assert len(commands_in(text)) > 30
    assert sum("--" in line for line in commands_in(text)) > 10


def test_commands_named_in_messages_exist():
    """Error messages and docstrings name commands between backticks."""
    lines = [line for path in PYTHON_FILES for line in re.findall(r"`(medalign [a-z][^`{\n\"]*)", path.read_text())]
    assert len(lines) > 10
    for line in lines:
        check_command(line)


def test_the_checker_finds_what_is_wrong():
    with pytest.raises(AssertionError, match="no command extrakt"):
        check_command("medalign teacher extrakt")
    with pytest.raises(AssertionError, match="no option"):
        check_command("medalign teacher extract --grids 3x3")
    assert commands_in("`medalign store info | verify`") == ["medalign store info", "medalign store verify"]
    (typed,) = typed_lines("```\n$ medalign demo \\\n  --seed 1  # so\n```\nmedalign is no command")
    assert typed.split() == ["medalign", "demo", "--seed", "1"]


def test_full_command_lines_parse():
    """Where an example gives values, they have the right types and nothing that is required is missing."""
    text = "".join(page.read_text() for page in PAGES)
    lines = [line for line in typed_lines(text) if "..." not in line]
    assert len(lines) > 10
    for line in lines:
        command, names, words = COMMANDS, [], shlex.split(line)[1:]
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            names.append(words.pop(0))
            command = command.commands[names[-1]]
        if names:
            command.make_context(names[-1], words)
        else:
            assert words == ["--version"]


def settings_table() -> dict[str, str]:
    text = (ROOT / "docs" / "training.md").read_text()
    rows = re.findall(
        r"^\| `((?:student|data|alignment|trainable|lora|training)\.\w+)` \| ([^|]*)\|", text, re.MULTILINE
    )
    return {key: default.strip().strip("`") for key, default in rows}


def test_the_settings_table_is_that_of_the_code():
    expected = {}
    for section, outer in Settings.model_fields.items():
        model = outer.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for key, field in model.model_fields.items():
            expected[f"{section}.{key}"] = "" if field.default is PydanticUndefined else written(field.default)
    assert settings_table() == expected


def written(value: object) -> str:
    """A default as YAML shows it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value) if isinstance(value, tuple) else value)


def test_the_presets_table_is_that_of_the_code():
    rows = re.findall(
        r"^\| `(\w+)` \| .* \| `(\w+)` \| ([\d.]+) x", (ROOT / "docs" / "training.md").read_text(), re.MULTILINE
    )
    assert {name: (geometry, float(rate)) for name, geometry, rate in rows} == {
        name: (preset.geometry, preset.rotation_rate) for name, preset in PRESETS.items()
    }

"""The package's front door: light to import, every name resolves, and keywords mirror the commands' options."""

import ast
import enum
import inspect
from pathlib import Path

import medalign
import pytest
from command_tree import COMMANDS
from medalign.errors import SettingsError
from test_laws import loaded_after

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "zarr", "transformers", "numpy", "polars", "pydantic", "PIL", "typer", "medalign.pipeline")


def test_importing_medalign_loads_nothing_heavy():
    assert loaded_after("import medalign\ndir(medalign)\nmedalign.__version__", HEAVY) == []
    assert loaded_after("import medalign\nmedalign.MedalignError", HEAVY) == []


def test_reading_a_store_loads_neither_zarr_nor_transformers():
    assert loaded_after("import medalign\nmedalign.open_store", ("torch", "zarr", "transformers")) == ["torch"]


@pytest.mark.parametrize("name", medalign.__all__)
def test_every_exported_name_resolves(name):
    value = getattr(medalign, name)
    assert name == "__version__" or value.__name__ == name
    assert name in dir(medalign)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'medalign' has no attribute 'opn_store'"):
        _ = medalign.opn_store


def test_type_checkers_see_what_is_exported():
    """The imports under TYPE_CHECKING name the same modules as the table."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    typed = {
        alias.asname: f"medalign.{node.module}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
        if alias.name == alias.asname
    }
    assert typed == medalign._MODULES
    assert sorted([*typed, "__version__"]) == sorted(medalign.__all__)


RENAMED = {"decode": "decoding", "student_folder": "student", "teacher_name": "teacher"}
"""Options whose variable in the command, or whose flag, has another name than the keyword."""
SEVERAL = {"inspect": {"adapter": "adapters"}}
"""Repeatable options, which are lists in Python."""
SETTINGS = {"evaluate": "decoding_settings"}
"""What `--set` is called where it does not override a configuration."""


def options(*words: str) -> dict[str, object]:
    """Names and defaults of a command's arguments and options, as keywords."""
    command = COMMANDS
    for word in words:
        command = command.commands[word]
    found = {}
    for option in command.params:
        default = option.default.value if isinstance(option.default, enum.Enum) else option.default
        name = (RENAMED | SEVERAL.get(words[-1], {})).get(option.name, option.name)
        found[SETTINGS.get(words[-1], name) if name == "overrides" else name] = None if option.required else default
    return {name: value for name, value in found.items() if name not in ("as_json", "row_format", "help")}


def keywords(function: object) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()
    empty = (inspect.Parameter.empty, ())
    return {
        item.name: None if item.default in empty else item.default for item in parameters if item.name != "progress"
    }


@pytest.mark.parametrize(
    ("function", "command"),
    [
        ("extract", ("teacher", "extract")),
        ("train", ("student", "train")),
        ("align", ("student", "align")),
        ("study", ("study",)),
        ("evaluate", ("student", "evaluate")),
        ("inspect", ("student", "inspect")),
        ("compare", ("student", "compare")),
    ],
)
def test_functions_have_the_options_of_their_commands(function, command):
    assert keywords(getattr(medalign, function)) == options(*command)


def test_load_and_ask_have_the_options_of_generate():
    asked = {"image", "question", "decoding", "max_new_tokens", "overrides"}
    generate = options("student", "generate")
    assert keywords(medalign.load_student) == {name: value for name, value in generate.items() if name not in asked}
    ask = keywords(medalign.Student.ask)
    assert {name: ask[name] for name in ("decoding", "max_new_tokens")} == {"decoding": "greedy", "max_new_tokens": 128}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: medalign.extract("s3://lab/x.zarr", teacher="t", weights="w"), r"out: s3://lab/x.zarr is a URL"),
        (lambda: medalign.extract(".", teacher="t", weights="w"), r"out: '\.' does not end in a name"),
        (lambda: medalign.extract("x", teacher="t", weights="w", geometry="pda"), r"geometry: 'pda' .*mean 'pad'"),
        (lambda: medalign.extract("x", teacher="t", weights="w", workers=0), "workers must be at least 1, got 0"),
        (lambda: medalign.load_student("x", dtype="fp16"), "dtype: 'fp16' is not one of auto, float32"),
        (lambda: medalign.load_student(None), "student must be a path, not NoneType"),
        (lambda: medalign.load_teacher("nobody", "w", device="cpu"), "unknown teacher 'nobody'"),
        (lambda: medalign.train({"student": {}}, dry_run=True), r"config has 2 problems:\n  student.path: missing"),
        (lambda: medalign.train({}, "x", card="24GB"), "card='24GB' only applies to the plan: add dry_run=True"),
        (lambda: medalign.train({}), "out is missing"),
        (lambda: medalign.train(["a"], dry_run=True), "config must be a path, not list"),
        (lambda: medalign.compare({"student": []}, "x"), r"student: unknown key \(did you mean 'students'\?\)"),
        (lambda: medalign.evaluate("s", "m", "o", decoding="gredy"), "did you mean 'greedy'"),
        (lambda: medalign.inspect("s", "m", "o", adapters="a"), "adapters must be a list of folders, not 'a'"),
        (lambda: medalign.inspect("s", "m", "o", seed=-1), "seed must be a whole number of at least 0, got -1"),
        (
            lambda: medalign.evaluate("s", "m", "o", limit=0, batch_size=0),
            r"batch_size must be at least 1, got 0.*\nlimit must be at least 1, got 0",
        ),
    ],
)
def test_wrong_arguments_are_settings_errors(call, message):
    with pytest.raises(SettingsError, match=message):
        call()

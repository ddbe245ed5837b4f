"""Commands that only list something start at once: they load nothing that takes long to load."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
from medalign.pipeline.evaluation import decoding_list
from medalign.pipeline.evaluation.decoding_choice import describe_decodings
from medalign.pipeline.evaluation.decoding_list import DESCRIPTIONS, ENTRY_POINTS, list_decodings
from medalign.student.decoding import Method, method_registry
from medalign.student.decoding.methods import vcd

HEAVY = (
    "torch", "transformers", "peft", "open_clip", "timm", "pyarrow", "polars", "pandas", "zarr", "numpy", "scipy",
    "sklearn", "safetensors", "PIL", "pydicom", "matplotlib", "jinja2", "yaml", "fsspec", "ray", "huggingface_hub",
)  # fmt: skip
"""Typer itself loads pydantic."""
PROGRAM = """
import json, sys
from medalign.cli import app
try:
    app(sys.argv[2:])
except SystemExit as end:
    assert not end.code
print(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]), file=sys.stderr)
"""


def run(*words: str) -> tuple[str, list[str]]:
    """What a command prints in a fresh interpreter, and the heavy packages that it loaded."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(HEAVY), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, json.loads(done.stderr)


@pytest.mark.parametrize(
    ("words", "shown"),
    [(("teacher", "list"), ["unimed-b16-224"]), (("student", "decodings"), ["vcd", "noise_step=500"])],
)
def test_a_list_loads_nothing_heavy(words, shown):
    printed, loaded = run(*words)
    assert loaded == []
    assert all(text in printed for text in shown)


def plain(described: object) -> object:
    """As JSON has it."""
    return json.loads(json.dumps(described))


def test_the_stored_descriptions_are_those_of_the_methods():
    """`make decodings` writes them again."""
    methods = method_registry._METHODS
    described = {name: text for name, text in describe_decodings().items() if name in methods}
    stored = json.loads(DESCRIPTIONS.read_text())
    assert stored == plain(described)
    assert list(stored) == list(described), "in the same order"
    assert decoding_list.ENTRY_POINTS == method_registry.ENTRY_POINTS


class Installed(EntryPoint):
    """The entry point of a package that adds a method."""

    def load(self) -> Method:
        return replace(vcd.METHOD, name="other", formula="of another package")


def test_methods_of_installed_packages_are_listed_too(monkeypatch):
    monkeypatch.setattr(decoding_list, "sys", SimpleNamespace(modules={}))  # a process without torch
    assert list_decodings() == json.loads(DESCRIPTIONS.read_text())
    entries = [Installed("other", "other:METHOD", ENTRY_POINTS)]
    for module, search in ((decoding_list, "entry_points"), (method_registry, "installed_entry_points")):
        monkeypatch.setattr(module, search, lambda group: entries)
    assert list_decodings()["other"]["formula"] == "of another package"


def test_methods_that_this_process_registered_are_listed_too(monkeypatch):
    monkeypatch.setattr(method_registry, "_METHODS", {**method_registry._METHODS, "mine": vcd.METHOD})
    assert list_decodings()["mine"] == list_decodings()["vcd"]

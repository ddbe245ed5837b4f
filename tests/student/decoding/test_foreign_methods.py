"""Decoding methods of other packages: one that cannot be loaded affects no other, and edited code is another method."""

import sys
from importlib import import_module, invalidate_caches
from importlib.metadata import EntryPoint

import pytest
from medalign.errors import SettingsError
from medalign.pipeline.evaluation.decoding_choice import describe_decodings
from medalign.student.decoding import choose_decoding, method_registry, register

SOURCE = """
from dataclasses import dataclass, replace
from medalign.student.decoding.methods import greedy

@dataclass(frozen=True)
class Settings:
    amount: float = 1.0

def answer(run, settings):
    return greedy.METHOD.answer(run, greedy.GreedySettings()) * {factor}

METHOD = replace(greedy.METHOD, name="mine", settings=Settings, answer=answer)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules of a package that is installed with a decoding method, and start anew, as a process would."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(method_registry, "_METHODS", dict(method_registry._METHODS))

    def write(value: str = "own:METHOD", **modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        invalidate_caches()
        entries = [EntryPoint("mine", value, method_registry.ENTRY_POINTS)]
        monkeypatch.setattr(method_registry, "installed_entry_points", lambda group: entries)

    yield write
    for name in ("own", "helper"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_of_mine", "ModuleNotFoundError: No module named 'no_such_module_of_mine'"),
        ("def answer(:", "SyntaxError: invalid syntax"),
        ("raise ValueError('on purpose')", "ValueError: on purpose"),
        ("", "AttributeError: module 'own' has no attribute 'METHOD'"),
        ("METHOD = 1", "own:METHOD is of type int, but should be a medalign.student.decoding.Method"),
    ],
)
def test_a_package_that_cannot_be_loaded_affects_only_its_method(package, source, reason):
    package(own=source)
    assert choose_decoding("greedy", max_new_tokens=2).method.name == "greedy"
    listed = describe_decodings()
    assert reason in listed["mine"]["formula"]
    assert listed["vcd"]["settings"]["alpha"]["what"]
    with pytest.raises(SettingsError, match="the decoding method 'mine'") as caught:
        choose_decoding("mine", max_new_tokens=2)
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", ["soft", "vcd"])
def test_an_entry_point_has_the_name_of_its_method(package, name):
    package(own=SOURCE.format(factor=1).replace('"mine"', f'"{name}"'))
    said = f"the entry point is 'mine', but own:METHOD.name is '{name}'"
    with pytest.raises(SettingsError, match=said):
        choose_decoding("mine", max_new_tokens=2)
    assert said in describe_decodings()["mine"]["formula"]
    assert choose_decoding("vcd", max_new_tokens=2).method.name == "vcd"


def test_edited_code_is_another_method(package):
    codes = []
    for factor in (1, 1, 2):
        package(own=SOURCE.format(factor=factor))
        codes.append(choose_decoding("mine", max_new_tokens=2).record()["code_sha256"])
    assert codes[0] == codes[1] != codes[2]


def test_every_file_of_a_package_counts(package, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "__init__.py").write_text(SOURCE.format(factor=1))
    codes = []
    for text in ("X = 1", "X = 2"):
        (folder / "tables.py").write_text(text)
        sys.modules.pop("own", None)
        package()
        codes.append(choose_decoding("mine", max_new_tokens=2).record()["code_sha256"])
    assert codes[0] != codes[1]


def test_a_registered_method_has_its_code_too(package, monkeypatch):
    package(helper=SOURCE.format(factor=3))
    monkeypatch.setattr(method_registry, "installed_entry_points", lambda group: [])
    register(import_module("helper").METHOD)
    assert len(choose_decoding("mine", max_new_tokens=2).record()["code_sha256"]) == 64


def test_methods_of_medalign_are_covered_by_the_versions():
    assert set(choose_decoding("vcd", max_new_tokens=2).record()) == {"name", "max_new_tokens", "settings"}

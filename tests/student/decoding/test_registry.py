"""The registry of decoding methods: names, validation of settings, and methods of other packages."""

import importlib.util
import json
import re
import sys
from dataclasses import asdict, fields, is_dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from decoded import questions, rotated_student, tokens
from medalign.errors import SettingsError
from medalign.pipeline.evaluation.decoding_choice import describe_decodings, read_decoding
from medalign.pipeline.evaluation.decoding_list import default_settings
from medalign.student.decoding import Decoding, choose_decoding, decodings, method_registry, register

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", sorted(decodings()))
def test_every_method_is_documented(name):
    method = decodings()[name]
    assert is_dataclass(method.settings)
    assert choose_decoding(name, max_new_tokens=3) == Decoding(name=name, max_new_tokens=3, settings=method.settings())
    described = describe_decodings()[name]
    assert all(setting["what"] for setting in described["settings"].values())
    assert described["formula"]
    assert described["paper"]
    assert json.loads(json.dumps(asdict(choose_decoding(name, max_new_tokens=3))))["name"] == name


@pytest.mark.parametrize("name", sorted(decodings()))
def test_listed_settings_are_accepted_by_set(name):
    listed = default_settings(describe_decodings()[name])
    assert len(listed) == len(fields(decodings()[name].settings))
    read = read_decoding(name, [f"decode.{line}" for line in listed], max_new_tokens=3)
    assert read == choose_decoding(name, max_new_tokens=3)


def test_all_problems_are_reported_at_once():
    asked = {"alhpa": 1, "beta": 7, "noise_step": "much", "num_beams": 2, "temperature": 1}
    with pytest.raises(SettingsError) as caught:
        choose_decoding("vcd", asked, max_new_tokens=0)
    for part in (
        "vcd has no setting 'alhpa' (did you mean 'alpha'?)",
        "beta: Input should be less than or equal to 1, found 7",
        "noise_step: Input should be a valid integer",
        "max_new_tokens is 0",
    ):
        assert part in str(caught.value)
    with pytest.raises(SettingsError, match=r"num_beams is 2 and temperature 1\.0, but beam search does not sample"):
        choose_decoding("vcd", {"num_beams": 2, "temperature": 1}, max_new_tokens=1)
    with pytest.raises(SettingsError, match=r"top_p is 0\.5, but temperature is 0"):
        choose_decoding("vcd", {"top_p": 0.5}, max_new_tokens=1)
    with pytest.raises(SettingsError, match=r"unknown decoding method 'greed' \(did you mean 'greedy'\?\)"):
        choose_decoding("greed", max_new_tokens=1)


def test_overrides_apply_only_to_the_decoding():
    assert read_decoding("vcd", ["decode.alpha=0.5"], max_new_tokens=2).settings.alpha == 0.5
    for wrong in ("lora.r=2", "decode=1"):
        with pytest.raises(SettingsError, match=r"--set must be decode\.KEY=VALUE here"):
            read_decoding("vcd", [wrong], max_new_tokens=2)


@pytest.fixture(scope="module")
def example():
    """The method of examples/own_decoding.py."""
    spec = importlib.util.spec_from_file_location("own_decoding", ROOT / "examples" / "own_decoding.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["own_decoding"] = module
    spec.loader.exec_module(module)
    yield module.METHOD
    del sys.modules["own_decoding"]


def test_a_registered_method_can_be_used(monkeypatch, example, student_folder, tmp_path):
    monkeypatch.setattr(method_registry, "_METHODS", dict(method_registry._METHODS))
    register(example)
    student, samples = rotated_student(student_folder), questions(tmp_path, 4)
    greedy = tokens(student, samples, "greedy")
    assert tokens(student, samples, "mirror", alpha=0.0) == greedy
    assert tokens(student, samples, "mirror", alpha=5.0, beta=0.0) != greedy
    with pytest.raises(SettingsError, match="named 'mirror' already exists"):
        register(example)


def test_a_method_of_an_installed_package_can_be_used(monkeypatch, example):
    class Entry(EntryPoint):
        def load(self):
            return example

    entries = [Entry("mirror", "mirror:METHOD", method_registry.ENTRY_POINTS)]
    monkeypatch.setattr(method_registry, "installed_entry_points", lambda group: entries)
    assert choose_decoding("mirror", max_new_tokens=1).method is example
    expected = "is installed already, by an installed package (mirror:METHOD), and needs no register()"
    with pytest.raises(SettingsError, match=re.escape(expected)):
        register(example)


def test_a_name_of_several_methods_is_refused_and_no_other(monkeypatch):
    group = method_registry.ENTRY_POINTS
    entries = [EntryPoint(name, f"{place}:METHOD", group)
               for name, place in (("vcd", "theirs"), ("own", "one"), ("own", "two"))]  # fmt: skip
    monkeypatch.setattr(method_registry, "installed_entry_points", lambda group: entries)
    expected = (
        "2 decoding methods named 'vcd': of medalign or this process, and of an installed package (theirs:METHOD)"
    )
    with pytest.raises(SettingsError, match=re.escape(expected)):
        choose_decoding("vcd", max_new_tokens=1)
    with pytest.raises(
        SettingsError, match=r"2 decoding methods named 'own': of an installed package \(one:METHOD\), and"
    ):
        choose_decoding("own", max_new_tokens=1)
    assert choose_decoding("greedy", max_new_tokens=1).name == "greedy"


def test_an_entry_point_that_is_found_twice_is_one_method(monkeypatch, example):
    class Entry(EntryPoint):
        def load(self):
            return example

    entries = [Entry("mirror", "mirror:METHOD", method_registry.ENTRY_POINTS)] * 2
    monkeypatch.setattr(method_registry, "installed_entry_points", lambda group: entries)
    assert choose_decoding("mirror", max_new_tokens=1).method is example


def test_the_documentation_lists_every_method():
    page = (ROOT / "docs" / "decoding.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    files = {path.stem for path in (ROOT / "student" / "decoding" / "methods").glob("*.py")} - {"__init__"}
    assert listed == set(decodings()) == files

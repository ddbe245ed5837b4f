"""Methods are found by name, their settings checked together, and others' methods take part."""

import json
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Annotated

import pytest
from medalign.errors import SettingsError
from medalign.pipeline.decoding import describe_decodings, read_decoding, settings_line
from medalign.student.decoding import Decoding, Method, choose_decoding, decodings, register, registry
from medalign.student.decoding.core.search import follow
from pydantic import Field


@pytest.mark.parametrize("name", sorted(decodings()))
def test_every_method_explains_itself(name):
    method = decodings()[name]
    assert is_dataclass(method.settings)
    assert choose_decoding(name, max_new_tokens=3) == Decoding(name=name, max_new_tokens=3, settings=method.settings())
    described = describe_decodings()[name]
    assert all(setting["what"] for setting in described["settings"].values())
    assert described["formula"]
    assert described["paper"]
    assert json.loads(json.dumps(asdict(choose_decoding(name, max_new_tokens=3))))["name"] == name


@pytest.mark.parametrize("name", sorted(decodings()))
def test_the_line_of_settings_is_what_set_takes(name):
    lines = settings_line(describe_decodings()[name]).split()
    assert len(lines) == len(fields(decodings()[name].settings))
    read = read_decoding(name, lines, max_new_tokens=3)
    assert read == choose_decoding(name, max_new_tokens=3)


def test_all_problems_are_told_at_once():
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
    with pytest.raises(SettingsError, match=r"num_beams is 2 and temperature 1\.0: beams are not sampled"):
        choose_decoding("vcd", {"num_beams": 2, "temperature": 1}, max_new_tokens=1)
    with pytest.raises(SettingsError, match=r"top_p is 0\.5, but temperature is 0"):
        choose_decoding("vcd", {"top_p": 0.5}, max_new_tokens=1)
    with pytest.raises(SettingsError, match=r"no decoding is called 'greed' \(did you mean 'greedy'\?\)"):
        choose_decoding("greed", max_new_tokens=1)


def test_overrides_are_of_the_decoding_alone():
    assert read_decoding("vcd", ["decode.alpha=0.5"], max_new_tokens=2).settings.alpha == 0.5
    for wrong in ("lora.rank=2", "decode=1"):
        with pytest.raises(SettingsError, match=r"--set takes decode\.KEY=VALUE here"):
            read_decoding("vcd", [wrong], max_new_tokens=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class LastSettings:
    rank: Annotated[int, Field(ge=1, description="Which token from the end.")] = 1


def unlikeliest(run, settings):
    from medalign.student.decoding.core.scorer import Branches

    return follow(run, Branches([run.branch()]), lambda scores: scores.argsort(dim=-1)[:, settings.rank - 1])


LAST = Method(name="last", formula="argmin", paper="-", settings=LastSettings, answer=unlikeliest)


def test_a_method_of_ones_own_takes_part(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    register(LAST)
    assert choose_decoding("last", {"rank": 2}, max_new_tokens=1).method is LAST
    with pytest.raises(SettingsError, match="'last' is there already"):
        register(LAST)


def test_a_method_of_an_installed_package_takes_part(monkeypatch):
    class Entry:
        name = "last"

        def load(self):
            return LAST

    monkeypatch.setattr(registry, "entry_points", lambda group: [Entry()] if group == "medalign.decodings" else [])
    assert choose_decoding("last", max_new_tokens=1).method is LAST

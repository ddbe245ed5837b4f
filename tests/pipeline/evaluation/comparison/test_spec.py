"""A comparison's file: short forms, and every problem at once."""

from pathlib import Path

import pytest
from comparisons import bench_values, write_spec
from medalign.errors import SettingsError
from medalign.pipeline.evaluation.comparison.cells import decoding_for
from medalign.pipeline.evaluation.comparison.spec import ComparisonSpec, folder_name, load_comparison

CONFIGS = Path(__file__).parents[4] / "configs" / "comparisons"


def test_short_forms_of_a_decoding(tmp_path):
    values = bench_values(tmp_path) | {"decodings": ["greedy", {"method": "vcd", "settings": {"alpha": 0.5}}]}
    spec = load_comparison(write_spec(tmp_path / "spec.yaml", values))
    assert [(item.name, item.method) for item in spec.decodings] == [("greedy", "greedy"), ("vcd", "vcd")]
    assert spec.decodings[1].settings == {"alpha": 0.5}


def test_every_problem_is_told_at_once(tmp_path):
    values = bench_values(tmp_path) | {"batch_size": 0, "sedes": [1]}
    values["students"][0]["adapters"][0]["pathes"] = []
    with pytest.raises(SettingsError) as caught:
        load_comparison(write_spec(tmp_path / "spec.yaml", values))
    message = str(caught.value)
    assert "has 3 problems" in message
    assert "sedes: unknown key (did you mean 'seeds'?)" in message
    assert "students.0.adapters.0.pathes: unknown key (did you mean 'paths'?)" in message
    assert "batch_size" in message


def test_names_that_do_not_fit_together_are_told(tmp_path):
    values = bench_values(tmp_path) | {"baseline": {"adapter": "Lora", "decoding": "beams"}, "seeds": [0, 1, 2]}
    values["data"] = []
    values["decodings"] = ["greedy", "greedy", {"name": "a/b", "method": "beam"}, {"name": "a b", "method": "vcd"}]
    with pytest.raises(SettingsError) as caught:
        load_comparison(write_spec(tmp_path / "spec.yaml", values))
    message = str(caught.value)
    assert "data: the list is empty" in message
    assert "decodings: 'greedy' appears twice" in message
    assert "decodings: 'a-b' appears twice" in message, "they would share a folder"
    assert "baseline.adapter is 'Lora', but tiny has LoRA, MEDALIGN" in message
    assert "baseline.decoding is 'beams'" in message
    assert "tiny, LoRA: 2 paths for 3 seeds" in message


def test_repeats_are_told_apart(tmp_path):
    """Both of two trainings would answer into one folder, and the first one's answers would count twice."""
    values = bench_values(tmp_path) | {"seeds": [0, 0]}
    with pytest.raises(SettingsError, match="seeds: 0 appears 2 times"):
        load_comparison(write_spec(tmp_path / "spec.yaml", values))
    values = bench_values(tmp_path)
    values["students"][0]["adapters"][1]["name"] = "lora"  # one folder with LoRA on some file systems
    with pytest.raises(SettingsError, match=r"adapters of tiny: 'LoRA' appears twice"):
        load_comparison(write_spec(tmp_path / "spec.yaml", values))


@pytest.mark.parametrize("values", [{"statistics_seed": -5}, {"seeds": [-1]}])
def test_negative_seeds_are_refused(tmp_path, values):
    with pytest.raises(SettingsError, match="greater than or equal to 0, found -"):
        load_comparison(write_spec(tmp_path / "spec.yaml", bench_values(tmp_path) | values))


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(SettingsError, match=r"the configuration file .* does not exist"):
        load_comparison(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(SettingsError, match="must contain sections"):
        load_comparison(tmp_path / "list.yaml")


@pytest.mark.parametrize(("name", "folder"), [("VCD a=0.5", "VCD-a-0.5"), ("../x", "x"), ("MEDALIGN", "MEDALIGN")])
def test_names_as_folders(name, folder):
    assert folder_name(name) == folder


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_specifications_are_whole(path):
    assert isinstance(load_comparison(path), ComparisonSpec)


def test_specifications_are_shipped():
    assert list(CONFIGS.glob("*.yaml"))


def test_a_student_has_settings_of_its_own(tmp_path):
    one = {"method": "vcd", "settings": {"alpha": 0.5, "beta": 0.2}, "for_students": {"tiny": {"alpha": 2.0}}}
    spec = load_comparison(write_spec(tmp_path / "spec.yaml", bench_values(tmp_path) | {"decodings": ["greedy", one]}))
    assert spec.decodings[1].settings_for("tiny") == {"alpha": 2.0, "beta": 0.2}
    assert spec.decodings[1].settings_for("other") == {"alpha": 0.5, "beta": 0.2}
    chosen = decoding_for(spec, "vcd", "tiny", spec.data[0].name, 3).settings
    assert (chosen.alpha, chosen.beta, chosen.seed) == (2.0, 0.2, 3)
    wrong = one | {"for_students": {"tony": {}}}
    with pytest.raises(SettingsError, match=r"decodings.vcd.for_students has 'tony', but the students are tiny"):
        load_comparison(write_spec(tmp_path / "spec.yaml", bench_values(tmp_path) | {"decodings": ["greedy", wrong]}))

"""The doctor finds what is there, says where the rest is to be had, and its lists agree with the package's own."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from medalign.pipeline.doctor.doctor import examine, hub_cache, package_version, show_doctor, untried_versions
from medalign.pipeline.doctor.requirements import NEEDED_PACKAGES, OPTIONAL_PARTS
from medalign.teacher_cache.teachers import TEACHERS


def look(tmp_path, **environment):
    return examine({"HF_HUB_CACHE": str(tmp_path / "hub"), **environment})


def found_weights(report):
    return {found.weights.name: found.path for found in report.weights}


def test_the_report_is_json_and_knows_this_machine(tmp_path):
    report = look(tmp_path)
    summary = json.loads(json.dumps(report.summary()))
    assert summary["packages"]["polars"] == package_version("polars")
    assert all(report.packages.values())
    assert report.devices[-1].name == "cpu"
    assert report.cores >= 1
    assert report.disks[0].free_gib > 0
    assert [disk.path for disk in report.disks] == [str(Path.cwd()), str(tmp_path / "hub")]
    assert any("is enough for a default store of about" in line for line in report.advice)


def test_nothing_is_found_where_nothing_is(tmp_path):
    report = look(tmp_path)
    assert set(found_weights(report).values()) == {None}
    advice = "\n".join(report.advice)
    assert "set MEDALIGN_WEIGHTS to the folder" in advice
    assert "not found: UniMed-CLIP ViT-L/14, UniMed-CLIP ViT-B/16, BiomedCLIP, LLaVA-Med-1.5" in advice
    wrong = look(tmp_path, MEDALIGN_WEIGHTS=str(tmp_path / "none"))
    assert any("which is not a folder" in line for line in wrong.advice)


def write_config(folder, **values):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(values))


def test_weights_are_recognized_by_name_and_by_config(tmp_path):
    folder = tmp_path / "weights"
    (folder / "clips").mkdir(parents=True)
    (folder / "clips" / "unimed_clip_vit_l14_base_text_encoder.pt").touch()
    (folder / "clips" / "biomed").mkdir()
    (folder / "clips" / "biomed" / "open_clip_config.json").touch()
    write_config(folder / "a-student", architectures=["LlavaMistralForCausalLM"])
    write_config(folder / "broken", architectures="none")
    (folder / "broken" / "config.json").write_text("{")
    write_config(folder / "one" / "two" / "three" / "four", architectures=["LlavaQwen2ForCausalLM"])
    assert found_weights(look(tmp_path, MEDALIGN_WEIGHTS=str(folder))) == {
        "UniMed-CLIP ViT-L/14": str(folder / "clips" / "unimed_clip_vit_l14_base_text_encoder.pt"),
        "UniMed-CLIP ViT-B/16": None,
        "BiomedCLIP": str(folder / "clips" / "biomed"),
        "LLaVA-Med-1.5": str(folder / "a-student"),
        "HuatuoGPT-Vision-7B": None,
    }


def test_downloads_of_the_hub_are_found(tmp_path):
    name = "models--FreedomIntelligence--HuatuoGPT-Vision-7B"
    write_config(tmp_path / "hub" / name / "snapshots" / "abc")
    found = found_weights(look(tmp_path))["HuatuoGPT-Vision-7B"]
    assert found == str(tmp_path / "hub" / name / "snapshots" / "abc")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, Path("/a")),
        ({"HF_HOME": "/b"}, Path("/b/hub")),
        ({}, Path.home() / ".cache" / "huggingface" / "hub"),
    ],
)
def test_the_hub_cache_is_where_huggingface_hub_has_it(environment, expected):
    assert hub_cache(environment) == expected


def test_the_needed_packages_are_those_of_pyproject():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=\[ ]", requirement)[0] for requirement in project["dependencies"]]
    assert sorted(names) == sorted(NEEDED_PACKAGES)
    extras = project["optional-dependencies"]
    for part in OPTIONAL_PARTS:
        extra = re.search(r"medalign\[(\w+)\]", part.how)
        assert extra is None or any(part.package in need for need in extras[extra[1]])


def test_the_teachers_files_are_those_the_registry_asks_for(tmp_path):
    files = {found.weights.file for found in look(tmp_path).weights}
    for name in ("unimed-l14-336", "unimed-b16-224"):
        assert TEACHERS[name].weights_hint in files


def test_a_missing_package_is_not_there():
    assert package_version("no-such-distribution") is None


def test_the_report_is_shown_for_people_and_for_programs(tmp_path, capsys):
    report = look(tmp_path)
    show_doctor(report, as_json=True)
    assert json.loads(capsys.readouterr().out)["medalign"] == report.medalign
    show_doctor(report, as_json=False)
    shown = capsys.readouterr().out
    for expected in ("optional packages", "local weights", "polars", "medalign[gguf]", report.advice[-1]):
        assert expected in shown


def test_versions_newer_than_any_tried_are_named():
    versions = {"transformers": "99.1", "zarr": "3.0.1", "open_clip_torch": "99.0+local", "jaxtyping": None}
    untried = untried_versions(versions)
    assert {name: installed for name, (installed, _) in untried.items()} == {
        "transformers": "99.1",
        "open_clip_torch": "99.0+local",
    }


def test_a_local_build_of_a_tried_version_is_no_newer_one():
    (newest,) = untried_versions({"torch": "9999"}).values()
    assert untried_versions({"torch": f"{newest[1]}+cpu"}) == {}


def test_advice_names_both_versions_and_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "medalign.pipeline.doctor.doctor.package_version", lambda name: "9999" if name == "peft" else "0"
    )
    advice = "\n".join(look(tmp_path).advice)
    tried = untried_versions({"peft": "9999"})["peft"][1]
    assert f"peft 9999 (tested up to {tried})" in advice
    assert f"pip install 'peft<={tried}'" in advice

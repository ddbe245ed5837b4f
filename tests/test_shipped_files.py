"""`medalign config`: every file that is installed can be listed, printed and copied; baselines match their runs."""

import json
from pathlib import Path

import pytest
from medalign.errors import InputError, SettingsError
from medalign.pipeline.evaluation.comparison.spec import load_comparison
from medalign.pipeline.shipped_files import copy_shipped, find_shipped, shipped_files, show_shipped, show_shipped_files
from medalign.pipeline.training.settings_loading import load_settings

ROOT = Path(__file__).parents[1]
PAPER_RUNS = ("iu-xray-huatuo", "iu-xray-llava-med", "slake-huatuo", "vqa-rad-llava-med")


def test_every_shipped_file_has_one_name_and_a_description():
    examples = {path for path in (ROOT / "examples").iterdir() if path.is_file()}
    there = examples.union((ROOT / "configs").rglob("*.yaml"))
    files = shipped_files()
    assert {file.path for file in files.values()} == there
    assert len(files) == len(there) >= 16
    for file in files.values():
        assert 10 < len(file.description) < 130, (file.name, file.description)
        assert not file.description.startswith(("#", '"'))


def test_lists_have_every_name_whole_in_tables_and_json(capsys):
    show_shipped_files(as_json=False)
    table = capsys.readouterr().out
    show_shipped_files(as_json=True)
    listed = json.loads(capsys.readouterr().out)["files"]
    assert [file["name"] for file in listed] == list(shipped_files())
    assert all(name in table for name in shipped_files())


def test_a_file_is_printed_as_it_is(capsys):
    path = ROOT / "configs" / "slake-huatuo.yaml"
    show_shipped("slake-huatuo", as_json=False)
    assert capsys.readouterr().out == path.read_text()
    show_shipped("slake-huatuo", as_json=True)
    assert json.loads(capsys.readouterr().out)["text"] == path.read_text()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("configs/phantom.yaml", "configs/phantom.yaml"),
        ("phantom.yaml", "configs/phantom.yaml"),
        ("comparisons/phantoms", "configs/comparisons/phantoms.yaml"),
        ("configs/comparisons/phantoms.yaml", "configs/comparisons/phantoms.yaml"),
        ("examples/read_store.py", "examples/read_store.py"),
    ],
)
def test_names_as_pages_write_them_are_understood(name, file):
    assert find_shipped(name).path == ROOT / file


@pytest.mark.parametrize("name", ["vqa-rad-smolm2", "configs/vqa-rad-smolm2.yaml"])
def test_a_misspelled_name_is_answered_with_the_nearest(name):
    with pytest.raises(SettingsError, match=rf"'{name}' \(did you mean 'vqa-rad-smollm2'\?\).*medalign config list"):
        find_shipped(name)


def test_copies_open_and_say_what_is_next(tmp_path):
    training = copy_shipped("phantom", tmp_path).summary()
    assert load_settings(training["copy"]) == load_settings(ROOT / "configs" / "phantom.yaml")
    assert training["next"] == f"medalign student train {tmp_path / 'phantom.yaml'} --dry-run"
    comparison = copy_shipped("comparisons/phantoms", tmp_path / "mine.yaml").summary()
    assert load_comparison(comparison["copy"]).title.startswith("Two ways")
    assert comparison["next"].startswith(f"medalign student compare {tmp_path / 'mine.yaml'} ")


def test_a_copy_replaces_a_file_only_by_force(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert copy_shipped("phantom", None).copy == Path("phantom.yaml")
    Path("phantom.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"phantom\.yaml exists: pass another --out, or --force"):
        copy_shipped("phantom", None)
    assert Path("phantom.yaml").read_text() == "mine"
    copy_shipped("phantom", None, force=True)
    assert Path("phantom.yaml").read_text() == (ROOT / "configs" / "phantom.yaml").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["phantom.yaml"]
    with pytest.raises(InputError, match="absent is not a folder: create it first"):
        copy_shipped("phantom", Path("absent/run.yaml"))


@pytest.mark.parametrize("run", PAPER_RUNS)
def test_a_baseline_differs_from_its_run_only_in_the_alignment(run):
    """LoRA alone, as the paper's tables compare it: no losses and no W; everything else is equal."""
    aligned, baseline = (load_settings(find_shipped(name).path) for name in (run, f"{run}-lora"))
    changed = {"alpha": 0.0, "beta": 0.0, "rotation": "none"}
    assert aligned.alignment.rotation == "full"
    assert min(aligned.alignment.alpha, aligned.alignment.beta) > 0
    assert baseline == aligned.model_copy(update={"alignment": aligned.alignment.model_copy(update=changed)})
    assert not baseline.alignment.uses_store

"""`medalign assets`: what is listed, added, found changed, and what metrics are told."""

import json
from pathlib import Path

import pytest
from medalign.cli import app
from medalign.errors import InputError, SettingsError
from medalign.pipeline.assets.asset_list import manifest_path, read_manifest
from medalign.pipeline.assets.asset_registry import add_asset, asset_digests, list_assets, local_assets, verify_assets
from medalign.progress import Silent
from medalign.student.metrics.reports.metric_assets import ASSETS
from medalign.student.metrics.reports.report_metric import MissingAsset
from report_assets import write_chexbert, write_punkt
from typer.testing import CliRunner


@pytest.fixture(autouse=True)
def own_manifest(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDALIGN_ASSETS", str(tmp_path / "kept" / "assets.json"))


@pytest.fixture
def punkt(tmp_path):
    folder = write_punkt(tmp_path / "punkt")
    add_asset("punkt", folder, Silent())
    return folder


def run(*words):
    return CliRunner().invoke(app, ["assets", *map(str, words)])


def test_all_are_absent_at_first_and_say_where_to_get_them():
    assert [report.state for report in list_assets()] == ["absent"] * len(ASSETS)
    shown = run("list")
    assert shown.exit_code == 0
    assert "roberta-large" in shown.output
    listed = json.loads(run("list", "--json").stdout)
    assert set(listed) == {need.name for need in ASSETS}
    assert all(asset["source"] and asset["state"] == "absent" for asset in listed.values())
    for asset in local_assets().values():
        assert isinstance(asset, MissingAsset)
        assert "`medalign assets list`" in asset.reason


def test_an_added_folder_is_in_the_manifest_with_its_digests(punkt, tmp_path):
    (tmp_path / "punkt" / ".cache").mkdir()
    (tmp_path / "punkt" / ".cache" / "left out").write_text("x")
    added = run("add", "punkt", punkt, "--json")
    assert added.exit_code == 0
    assert json.loads(added.stdout)["files"] == 4
    saved = json.loads(manifest_path().read_text())
    assert (saved["format"], saved["version"]) == ("medalign-assets", 1)
    assert set(saved["assets"]["punkt"]["files"]) == set(asset_digests()["punkt"])
    assert local_assets()["punkt"] == punkt
    assert run("verify").exit_code == 0


def test_what_a_folder_lacks_is_told_with_its_source(tmp_path):
    (tmp_path / "abbrev_types.txt").write_text("dr\n")
    with pytest.raises(
        InputError, match=r"collocations\.tab, ortho_context\.tab, sent_starters\.txt are missing.*NLTK"
    ):
        add_asset("punkt", tmp_path, Silent())
    with pytest.raises(
        SettingsError, match=r"unknown asset 'punk' \(did you mean 'punkt'\?\); available: punkt, wordnet"
    ):
        add_asset("punk", tmp_path, Silent())
    assert read_manifest(manifest_path()) == {}


def test_a_folder_that_its_metrics_cannot_load_is_not_added(tmp_path):
    folder = write_chexbert(tmp_path / "chexbert")
    (folder / "chexbert.pth").write_bytes(b"not a checkpoint")
    result = run("add", "chexbert", folder)
    assert result.exit_code == 3
    assert read_manifest(manifest_path()) == {}


def test_a_changed_byte_is_found_by_verify_alone(punkt):
    path = punkt / "abbrev_types.txt"
    path.write_text(path.read_text().replace("dr", "xr"))
    assert local_assets()["punkt"] == punkt  # the same size: looked at by `verify`
    (report,) = verify_assets([], Silent())
    assert report.state.startswith(f"changed: {path} has SHA-256")
    result = run("verify", "punkt")
    assert result.exit_code == 3
    assert "abbrev_types.txt" in result.output


def test_a_missing_new_or_longer_file(punkt):
    (punkt / "extra.txt").write_text("new")
    (punkt / "sent_starters.txt").unlink()
    (punkt / "collocations.tab").write_text("")
    (report,) = verify_assets(["punkt"], Silent())
    assert [problem.rsplit("/", 1)[1].split(" ", 1)[0] for problem in report.problems] == (
        ["sent_starters.txt", "extra.txt", "collocations.tab"]
    )
    missing = local_assets()["punkt"]
    assert isinstance(missing, MissingAsset)
    assert "collocations.tab has 0 bytes" in missing.reason
    listed = {report.name: report.state for report in list_assets()}
    assert listed["punkt"].startswith("changed:")


def test_verifying_what_was_never_added_or_a_moved_folder(punkt, tmp_path):
    with pytest.raises(InputError, match="wordnet: not added yet"):
        verify_assets(["wordnet"], Silent())
    punkt.rename(tmp_path / "elsewhere")
    (report,) = verify_assets([], Silent())
    assert report.problems == [f"{punkt} is missing"]


def test_a_foreign_manifest_is_refused():
    path = manifest_path()
    path.parent.mkdir(parents=True)
    for content in ("[]", "{", json.dumps({"format": "medalign-assets", "version": 2, "assets": {}})):
        path.write_text(content)
        with pytest.raises(InputError, match=str(path)):
            list_assets()


def test_the_manifest_is_in_the_home_folder_by_default(monkeypatch):
    monkeypatch.delenv("MEDALIGN_ASSETS")
    assert manifest_path() == Path.home() / ".medalign" / "assets.json"

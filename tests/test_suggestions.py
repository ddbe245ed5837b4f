"""What somebody is told who types a name that does not exist: the one that was meant."""

import ast
import json
import re
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from command_tree import COMMANDS
from medalign.api.arguments import check_choices
from medalign.errors import InputError, SettingsError, StoreError
from medalign.pipeline.data.import_manifest import import_manifest
from medalign.pipeline.data.importers.image_folders.folder import require_folder
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.evaluation.grounding.ground import read_grounding
from medalign.pipeline.reports.runs.run_report import make_run_report
from medalign.pipeline.training.run_folder import settings_file
from medalign.pipeline.yaml_files import read_sections
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import read_adapter_record
from medalign.student.families.original.original_config import read_config
from medalign.student.prompts.templates import find_template
from medalign.suggestions import respelled, to_pass
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.small_file_checks import CREATED_BY
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.file_names import GROUP_FILE, INDEX_FILE
from medalign.teacher_cache.teachers import teacher_spec
from pydantic import BaseModel
from stores import write_store

ROOT = Path(__file__).parents[1]
MOVED = ("info", "verify", "repair", "extend", "subset", "merge", "pack", "unpack", "push", "pull", "sign", "convert")
GROUPS = ("data", "teacher", "store", "student", "assets")
NOTHING = {"split": None, "data_use": None, "images": None, "seed": 0, "language": "en", "progress": Silent()}


@pytest.mark.parametrize("command", MOVED)
def test_commands_that_take_a_store_say_where_they_went(command, refusal):
    for words in (("teacher", command), ("teacher", command, "s.zarr", "--no-such-option")):
        told = refusal(*words)
        assert told.startswith(f"error: there is no command `medalign teacher {command}`")
        assert told.endswith(f"(did you mean `medalign store {command}`?)")


@pytest.mark.parametrize("command", MOVED)
def test_with_json_they_say_it_in_json_too(command, capsys):
    words = ["teacher", command, "s.zarr", "--json", "--no-such-option"]
    assert COMMANDS.main(words, prog_name="medalign", standalone_mode=False) == 2
    shown = capsys.readouterr()
    told = json.loads(shown.out)["error"]
    assert told.startswith(f"there is no command `medalign teacher {command}`")
    assert told.endswith(f"(did you mean `medalign store {command}`?)")
    assert shown.err.strip() == f"error: {told}"


def test_each_command_of_a_group_is_found_from_the_top(refusal):
    for group in GROUPS:
        for command in COMMANDS.commands[group].commands:
            assert f"`medalign {group} {command}`" in refusal(command), command


def test_a_command_that_several_groups_have_names_them_all(refusal):
    assert refusal("verify").endswith("(did you mean `medalign store verify` or `medalign assets verify`?)")
    assert refusal("convert").endswith("(did you mean `medalign store convert` or `medalign student convert`?)")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("trian",), "medalign student train"),
        (("stroe",), "medalign store"),
        (("evaluation",), "medalign student evaluate"),
        (("store", "verfy"), "medalign store verify"),
        (("teacher", "extrct"), "medalign teacher extract"),
        (("student", "extract"), "medalign teacher extract"),
        (("store", "finish"), "medalign teacher finish"),
    ],
)
def test_misspelled_commands_are_recognized(typed, meant, refusal):
    assert refusal(*typed).endswith(f"(did you mean `{meant}`?)")


def test_where_nothing_is_near_the_help_is_named(refusal):
    assert refusal("xqzw") == "error: there is no command `medalign xqzw`; `medalign --help` lists the commands"
    assert refusal("store", "xqzw").endswith("; `medalign store --help` lists the commands")


@pytest.mark.parametrize(
    ("refused", "meant"),
    [
        (lambda: teacher_spec("unimed-b16"), "'unimed-b16-224'"),
        (lambda: find_template("vicuna"), "'vicuna_v1'"),
        (lambda: import_manifest("vqarad", Path("a"), Path("b"), **NOTHING), "'vqa-rad'"),
        (lambda: check_choices(geometry=("padd", ("pad", "crop"))), "'pad'"),
    ],
)
def test_values_that_exist_under_another_name_are_suggested(refused, meant):
    with pytest.raises(SettingsError) as caught:
        refused()
    assert f" (did you mean {meant}?)" in str(caught.value)


def test_names_are_compared_in_one_module():
    """`choices.py` scores answers as the paper's code does; it suggests nothing."""
    importers = {
        path.relative_to(ROOT).as_posix()
        for room in ("", "api", "commands", "pipeline", "student", "teacher_cache")
        for path in (ROOT.glob("*.py") if not room else (ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and node.module == "difflib")
        or (isinstance(node, ast.Import) and any(alias.name == "difflib" for alias in node.names))
    }
    assert importers == {"suggestions.py", "student/metrics/choices.py"}


def test_stores_whose_card_names_the_old_command_are_whole(tmp_path):
    """Their README.md has no metadata, says `medalign teacher verify`, and its comments stand in the same column."""
    store = write_store(tmp_path / "s.zarr", range(2), created_by=CREATED_BY)
    body = (store / "README.md").read_bytes().partition(b"\n---\n\n")[2]
    now, before = (
        b"    sha256sum --check --quiet manifest-sha256.txt    # every file, inside the store's folder\n"
        b"    medalign store verify STORE                      # every row, every checksum, the root digest\n",
        b"    sha256sum --check --quiet manifest-sha256.txt    # every file, inside the store's folder\n"
        b"    medalign teacher verify STORE                    # every row, every checksum, the root digest\n",
    )
    assert now in body
    replace(store, body.replace(now, before).replace(b"medalign store verify", b"medalign teacher verify"))
    assert verify(store).problems == ()
    replace(store, body.replace(b"medalign store verify", b"medalign store erase"))
    assert [problem.key for problem in verify(store).problems] == ["README.md"]


def test_stores_whose_card_has_no_metadata_are_whole(tmp_path):
    """Those that earlier versions wrote."""
    store = write_store(tmp_path / "s.zarr", range(2), created_by=CREATED_BY)
    body = (store / "README.md").read_bytes().partition(b"\n---\n\n")[2]
    assert body.startswith(b"# ")
    replace(store, body)
    assert verify(store).problems == ()
    replace(store, body.replace(b"Zarr v3", b"Zarr v2"))
    assert [problem.key for problem in verify(store).problems] == ["README.md"]


def replace(store: Path, card: bytes) -> None:
    """Write another card and list it with its digest, as the program that wrote it would have."""
    old = sha256((store / "README.md").read_bytes()).hexdigest()
    (store / "README.md").write_bytes(card)
    listed = store / "manifest-sha256.txt"
    listed.write_text(listed.read_text().replace(old, sha256(card).hexdigest()))


def test_the_folder_near_a_wrong_path_is_named(tmp_path):
    def advice(wrong):
        return to_pass(wrong, lambda folder: (folder / "mark").is_file(), "look elsewhere").replace(f"{tmp_path}/", "")

    lone = tmp_path / "lone"
    for name in ("runs/a", "runs/b", "runs/b/inside", "lone/deep/deeper"):
        (tmp_path / name).mkdir(parents=True)
    assert advice(tmp_path / "runs") == "look elsewhere"
    for name in "ab":
        (tmp_path / "runs" / name / "mark").touch()
    assert advice(tmp_path / "runs") == "pass runs/a or runs/b"  # inside
    assert advice(tmp_path / "runs" / "b" / "inside") == "pass runs/b"  # around
    assert advice(tmp_path / "runs" / "c") == "pass runs/a or runs/b"  # beside, also of what does not exist
    assert advice(lone / "deep" / "deeper") == "look elsewhere"
    for name in "cdefg":
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "mark").touch()
    assert advice(tmp_path / "runs") == "pass runs/a, runs/b or runs/c, or another one of 7"


def test_a_folder_that_is_no_store_leads_to_the_store(tmp_path):
    store = tmp_path / "store.zarr"
    write_store(store, range(1))
    manifest = tmp_path / "manifest.parquet"
    manifest.touch()
    for wrong in (tmp_path, manifest, store / "E_a", store / "index.parquet"):
        with pytest.raises(StoreError, match=f"; pass {re.escape(str(store))}$"):
            open_store(wrong)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (read_adapter_record, "medalign.json"),
        (read_config, "config.json"),
        (read_grounding, "grounding.json"),
        (lambda folder: make_run_report(folder, None, None, Silent()), "metrics.json"),
        (lambda folder: settings_file(folder, "config.yaml", "`medalign student train", resume=True), "config.yaml"),
        (Manifest.read, "manifest.parquet"),
    ],
)
def test_the_folder_of_several_runs_leads_to_one(tmp_path, read, name):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / name).touch()
    with pytest.raises(InputError, match=rf"(pass|such as) {re.escape(str(tmp_path / 'one'))}"):
        read(tmp_path)


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """An adapter, a student, a store and a manifest under a relative path; the adapter's folder is `arms/medalign`."""
    monkeypatch.chdir(tmp_path)
    for name in ("demo/arms/medalign/medalign.json", "demo/student/config.json", "demo/manifest.parquet", "s.yaml"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    (tmp_path / "demo" / "store.zarr").mkdir()
    for name in (GROUP_FILE, INDEX_FILE):
        (tmp_path / "demo" / "store.zarr" / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("read", "wrong", "meant"),
    [
        (read_adapter_record, "demo/arms/medaling", "demo/arms/medalign"),
        (read_adapter_record, "dmeo/arms/medalign", "demo/arms/medalign"),
        (read_config, "demo/studnet", "demo/student"),
        (open_store, "demo/stroe.zarr", "demo/store.zarr"),
        (Manifest.read, "demo/manifest.csv", "demo/manifest.parquet"),
        (Manifest.read, "demo/mainfest.parquet", "demo/manifest.parquet"),
        (partial(read_sections, model=BaseModel), "s.yml", "s.yaml"),
        (require_folder, "demos", "demo"),
    ],
)
def test_who_misspells_a_path_is_told_the_one_that_was_meant(demo, read, wrong, meant):
    with pytest.raises((InputError, StoreError, SettingsError)) as told:
        read(Path(wrong))
    assert f"(did you mean '{meant}'?)" in str(told.value)
    assert "create it" not in str(told.value)


@pytest.mark.parametrize("read", [read_adapter_record, read_config, open_store, Manifest.read])
def test_where_nothing_is_near_a_relative_path_the_working_folder_is_named(demo, read):
    for wrong, is_said in ((Path("xyz"), True), (demo / "xyz", False)):
        with pytest.raises((InputError, StoreError)) as told:
            read(wrong)
        assert (f"the current folder is {demo}" in str(told.value)) == is_said
        assert "did you mean" not in str(told.value)


def test_only_what_is_right_is_suggested(demo):
    Path("demo/arms/medalin").mkdir()
    assert respelled(Path("demo/arms/medaling"), lambda path: (path / "medalign.json").is_file()) == Path(
        "demo/arms/medalign"
    )
    assert respelled(Path("demo/arms/xyz")) is None
    assert respelled(Path("nowhere/at/all")) is None


@pytest.mark.parametrize("name", ["zarr.json", "index.parquet"])
def test_a_folder_with_half_of_a_store_is_not_suggested_as_one(tmp_path, name):
    (tmp_path / "teacher.zarr").mkdir()
    (tmp_path / "teacher.zarr" / name).touch()
    with pytest.raises(StoreError) as told:
        open_store(tmp_path / "taecher.zarr")
    assert "did you mean" not in str(told.value)


def test_a_manifest_is_to_be_created_as_parquet(demo):
    with pytest.raises(InputError, match=r"create it with `medalign data import NAME SRC --out other/q\.parquet`"):
        Manifest.read("other/q.csv")

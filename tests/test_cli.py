"""Every command as a user types it, end to end on tiny things, and what each bad input is told."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from command_tree import COMMANDS
from medalign.cli import app
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.reports.runs.training_pages.train_page import train_page
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

IMAGES = 10
CONFIG = {
    "student": {"template": "vicuna_v1"},
    "data": {"teacher": "phantom-tiny", "validation_split": "validation"},
    "alignment": {"layer": 2, "beta": 0.1},
    "lora": {"r": 2, "lora_alpha": 4},
    "training": {
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 0.01,
        "save_steps": 1,
        "logging_steps": 1,
        "dataloader_num_workers": 0,
        "device": "cpu",
    },
}


def run(*arguments: object, code: int = 0) -> SimpleNamespace:
    """Type a command; stdout and stderr apart."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    shown = f"{result.stdout}\n{result.stderr}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(shown) from result.exception
    assert result.exit_code == code, shown
    return SimpleNamespace(out=result.stdout, err=result.stderr, code=result.exit_code)


def report(*arguments: object, code: int = 0) -> dict:
    """Type a command with --json; stdout must be one JSON object and nothing else."""
    values = json.loads(run(*arguments, "--json", code=code).out)
    assert isinstance(values, dict)
    return values


@dataclass(frozen=True)
class Workspace:
    """What the commands made, in the order of the two stages."""

    folder: Path
    student: Path
    weights: Path
    phantoms: dict
    extracted: dict
    trained: dict

    @property
    def manifest(self) -> Path:
        return self.folder / "phantoms" / "manifest.parquet"

    @property
    def store(self) -> Path:
        return self.folder / "store.zarr"

    @property
    def config(self) -> Path:
        return self.folder / "run.yaml"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    def extract(
        self, *arguments: object, weights: Path | None = None, grid: str = "3x3", **options: int
    ) -> SimpleNamespace:
        teacher = ("--teacher", "phantom-tiny", "--weights", weights or self.weights, "--device", "cpu", "--grid", grid)
        return run("teacher", "extract", *teacher, *arguments, **options)

    def train(self, *arguments: object, **options: int) -> SimpleNamespace:
        return run("student", "train", self.config, *arguments, **options)


@pytest.fixture(scope="session")
def workspace(student_folder, tmp_path_factory) -> Workspace:
    """Both stages, typed one after the other."""
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(3)
    weights = folder / "teacher.safetensors"
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), weights)
    phantoms = report("data", "phantom", "--out", folder / "phantoms", "--images", IMAGES, "--seed", 4)
    paths = {"manifest": folder / "phantoms" / "manifest.parquet", "store": folder / "store.zarr"}
    extract = ("teacher", "extract", "--teacher", "phantom-tiny", "--weights", weights, "--device", "cpu")
    sources = ("--manifest", paths["manifest"], "--out", paths["store"])
    extracted = report(*extract, *sources, "--grid", "3x3", "--shard-rows", 4)
    config = {name: dict(section) for name, section in CONFIG.items()}
    config["student"]["path"] = str(student_folder)
    config["data"] |= {name: str(path) for name, path in paths.items()}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    trained = report("student", "train", folder / "run.yaml", "--out", folder / "adapter")
    return Workspace(folder, student_folder, weights, phantoms, extracted, trained)


@pytest.fixture
def noise(tmp_path) -> list[Path]:
    """Three good JPEG files and a truncated one, in one folder."""
    random = np.random.default_rng(1)
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{index}.jpg" for index in range(4)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    paths[2].write_bytes(paths[2].read_bytes()[:900])
    return paths


def commands(group=None, names: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and group of the command line."""
    group = group or COMMANDS
    found = [names]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*names, name))
    return found


@pytest.mark.parametrize("names", commands(), ids=" ".join)
def test_every_command_has_help(names):
    shown = run(*names, "--help").out
    assert "Usage: medalign" in shown or "Usage: root" in shown
    assert "--help" in shown


@pytest.mark.parametrize("names", commands(), ids=" ".join)
def test_every_command_can_print_json(names):
    command = COMMANDS
    for name in names:
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options or hasattr(command, "commands")


def test_there_are_the_commands_of_the_documentation():
    found = {" ".join(names) for names in commands()}
    assert found >= {"demo", "doctor", "data import", "data phantom", "teacher extract", "store verify"}
    assert found >= {"student init", "student train", "student generate", "student evaluate"}


def test_both_stages_end_to_end(workspace):
    assert workspace.phantoms["images"] == IMAGES
    assert (workspace.extracted["images"], workspace.extracted["grid"]) == (IMAGES, "3x3")
    assert workspace.extracted["failures"] == 0
    assert workspace.trained["steps"] == 2
    assert workspace.trained["final"].keys() >= {"loss_lm", "loss_vis", "loss_att", "eval_loss_lm"}
    files = {path.name for path in workspace.adapter.iterdir()}
    assert files >= {"adapter_model.safetensors", "rotation.safetensors", "medalign.json", "config.yaml", "log.jsonl"}
    assert load_file(workspace.adapter / "rotation.safetensors")["layers.2"].abs().max() > 0
    record = json.loads((workspace.adapter / "medalign.json").read_text())
    assert record["store"]["fingerprint"] == report("store", "info", workspace.store)["fingerprint"]


def test_the_page_of_a_training_has_its_losses(workspace):
    page = train_page(workspace.adapter)
    assert "all 2 steps are complete" in page.lead
    assert {"training", "validation"} == set(page.figures[0].table["series"])
    assert workspace.trained["report"] is None, "tests switch reports off"


def test_info_and_verify_describe_the_store(workspace):
    described = report("store", "info", workspace.store)
    checked = report("store", "verify", workspace.store)
    assert (described["teacher"], described["grid"], described["images"]) == ("phantom-tiny", "3x3", IMAGES)
    assert checked["verified"] is True
    assert checked["root_sha256"] == described["claimed_root_sha256"] == workspace.extracted["root_sha256"]
    assert "phantom-tiny" in run("store", "info", workspace.store).out


def test_the_registry_and_the_doctor_are_json_objects():
    assert [teacher["name"] for teacher in report("teacher", "list")["teachers"]][-1] == "phantom-tiny"
    assert report("doctor")["packages"]["torch"]


def test_a_dry_run_plans_without_writing(workspace, tmp_path):
    plan = report("student", "train", workspace.config, "--dry-run", "--set", "training.max_steps=7")
    assert plan["optimizer_steps"] == 7
    assert plan["image_tokens"] == "3x3"
    workspace.train("--dry-run", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_image_is_found_in_another_unicode_form(workspace, tmp_path):
    shutil.copy(workspace.folder / "phantoms" / "images" / "00000.png", tmp_path / "Scha\u0308del.png")
    asked = ("--student", workspace.adapter, "--image", tmp_path / "Sch\u00e4del.png", "--question", "Is it?")
    assert run("student", "generate", *asked, "--max-new-tokens", 4, "--device", "cpu").out.strip()


def test_a_trained_student_answers(workspace):
    image = workspace.folder / "phantoms" / "images" / "00000.png"
    asked = ("--student", workspace.adapter, "--image", image, "--question", "Is it?", "--max-new-tokens", 4)
    asked = ("student", "generate", *asked, "--device", "cpu")
    answer = report(*asked)
    assert answer["images"] == [str(image)]
    assert run(*asked).out.strip() == answer["answer"]
    assert run(*asked, "--decode", "beam", "--set", "decode.num_beams=2").out.strip()
    sampled = [
        run(*asked, "--decode", "nucleus", "--set", "decode.temperature=5", "--set", f"decode.seed={seed}").out
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]
    narrow = run(*asked, "--decode", "nucleus", "--set", "decode.top_p=1e-6", "--set", "decode.temperature=0.01").out
    assert narrow.strip() == answer["answer"]  # so little mass is the most likely token


def test_an_evaluation_writes_scores_and_resumes(workspace, tmp_path, monkeypatch):
    base = ("student", "evaluate", "--manifest", workspace.manifest, "--device", "cpu", "--max-new-tokens", 2)
    arguments = (*base, "--student", workspace.student, "--adapter", workspace.adapter, "--limit", 4)
    arguments = (*arguments, "--decode", "beam", "--set", "decode.num_beams=3", "--out", tmp_path / "e")
    scores = report(*arguments)
    assert scores["questions"] == 4
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["run"]["decoding"]["settings"] == {"num_beams": 3}
    assert not (tmp_path / "e" / "report.html").exists()
    monkeypatch.delenv("MEDALIGN_NO_REPORT")
    again = report(*arguments, "--resume")
    assert again["resumed"] == 4
    assert again["report"] == str(tmp_path / "e" / "report.html")
    assert (tmp_path / "e" / "report.html").read_text().count("data:image/jpeg") == 4
    assert "--resume to continue" in run(*arguments, code=3).err


def test_a_student_is_made_from_two_models(workspace, tmp_path):
    from students import byte_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    llm = tmp_path / "llm"
    LlamaForCausalLM(
        LlamaConfig(vocab_size=260, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(llm)
    byte_tokenizer().save_pretrained(llm)
    out = tmp_path / "made"
    made = report("student", "init", "--llm", llm, "--vision", "tiny", "--out", out, "--image-tokens", 4)
    assert made["student"] == str(out)
    assert made["image_tokens"] == 4
    assert (out / "model.safetensors").is_file()
    again = ("student", "init", "--llm", llm, "--vision", "tiny", "--out", out)
    assert f"{out} already exists" in run(*again, code=3).err
    assert (
        "50 image tokens do not form a square grid"
        in run(*again[:-1], tmp_path / "b", "--image-tokens", 50, code=2).err
    )
    absent = run(*again[:-1], tmp_path / "b", "--gguf-file", "x.gguf", code=3).err
    assert "has no file x.gguf" in absent


def test_importers_take_only_options_they_use(noise, tmp_path):
    imported = report("data", "import", "folder", noise[0].parent, "--out", tmp_path / "m.parquet", "--split", "train")
    assert (imported["images"], imported["undecodable_images"]) == (4, 1)
    useless = run("data", "import", "folder", noise[0].parent, "--out", tmp_path / "m.parquet", "--seed", 3, code=2)
    assert useless.err == "error: --seed 3: not used for folder\n"
    assert "unknown data set 'dicom'" in run("data", "import", "dicom", tmp_path, "--out", "m", code=2).err


# Bad input: exit code and message.


def test_a_truncated_image_among_good_ones(workspace, noise, tmp_path):
    store = tmp_path / "s.zarr"
    told = workspace.extract("--images", noise[0].parent, "--out", store, code=5).err
    assert f"error: 1 image has no row in {store}; its failures.parquet lists them:" in told
    assert "truncated" in told
    assert "All other images have one." in told
    failures = pl.read_parquet(store / "failures.parquet")
    assert failures.height == 1
    assert "truncated" in failures["reason"][0]
    described = report("store", "info", store)
    assert (described["images"], described["failures"], described["data_use"]) == (3, 1, "private")
    assert report("store", "verify", store)["verified"] is True
    extend = ("store", "extend", store, "--weights", workspace.weights, "--device", "cpu", "--images", noise[0].parent)
    again = run(*extend, "--retry-failed", code=5).err
    assert f"{noise[2]} ({failures['image_hash'][0][:12]}): truncated" in again
    Image.open(noise[0]).rotate(90).save(noise[2])  # the repaired file is another image: the old one is not asked for
    run(*extend)
    assert report("store", "info", store)["images"] == 4


def test_a_failed_image_is_tried_again(workspace, noise, tmp_path):
    """The file was replaced between import and extraction, and is put back."""
    noise[2].unlink()
    manifest, store = tmp_path / "m.parquet", tmp_path / "s.zarr"
    report("data", "import", "folder", noise[0].parent, "--out", manifest)
    good = noise[0].read_bytes()
    noise[0].write_bytes(noise[1].read_bytes())
    told = workspace.extract("--manifest", manifest, "--out", store, code=5).err
    assert "the file has changed since it was hashed" in told
    assert "`medalign store extend --retry-failed` tries the same files again" in told
    noise[0].write_bytes(good)
    extend = ("store", "extend", store, "--weights", workspace.weights, "--device", "cpu", "--manifest", manifest)
    assert report(*extend, code=5)["images"] == 0
    again = report(*extend, "--retry-failed")
    assert (again["images"], again["failures"], again["profiles"]) == (1, 0, {"float16": 2})
    assert report("store", "verify", store)["verified"] is True
    described = report("store", "info", store)
    assert (described["images"], described["failures"]) == (3, 0)


def test_images_of_a_stricter_class_are_not_added(workspace, noise, tmp_path):
    store = shutil.copytree(workspace.store, tmp_path / "s.zarr")
    extend = ("store", "extend", store, "--weights", workspace.weights, "--device", "cpu")
    told = run(*extend, "--images", noise[0].parent, code=4).err
    assert "is public, but that of these images is private: extract them to a separate store" in told


def test_tasks_and_finish(workspace, tmp_path):
    store = tmp_path / "s.zarr"
    task = ("--manifest", workspace.manifest, "--out", store, "--shard-rows", 4, "--json", "--task")
    first = json.loads(workspace.extract(*task, "1/2").out)
    assert (first["shards_written"], first["root_sha256"]) == (1, None)
    assert "2 of 3 shards are missing: 0, 2" in run("teacher", "finish", store, code=4).err
    workspace.extract(*task, "0/2")
    assert report("teacher", "finish", store)["root_sha256"] == workspace.extracted["root_sha256"]
    assert "--task must be I/N with 0 <= I < N" in workspace.extract(*task, "2/2", code=2).err


def test_a_keyed_store_is_continued_with_its_key_alone(workspace, tmp_path):
    key, store = tmp_path / "lab.key", tmp_path / "s.zarr"
    made = report("data", "make-key", key)
    extract = ("--manifest", workspace.manifest, "--out", store, "--title", "Mine", "--license", "CC0-1.0")
    workspace.extract(*extract, "--hash-key", key, "--profile", "int8", "--tolerance", 0.1)
    described = report("store", "info", store)
    assert (described["hashing"], described["profile"], described["title"]) == (made["hashing"], "int8", "Mine")
    told = workspace.extract(*extract, "--resume", code=3).err
    assert f"hashing: sha256, not {made['hashing']}" in told
    assert "--tolerance must be above 0" in workspace.extract(*extract, "--tolerance", 0, code=2).err


def test_weights_of_the_wrong_teacher(workspace, tmp_path):
    wrong = tmp_path / "other.safetensors"
    save_file({"visual.positional_embedding": torch.zeros(197, 768)}, wrong)
    told = workspace.extract("--manifest", workspace.manifest, "--out", tmp_path / "s.zarr", weights=wrong, code=3).err
    assert f"error: {wrong} is not phantom-tiny" in told
    assert "It looks like unimed-b16-224" in told
    assert f"To use it, pass --teacher unimed-b16-224 --weights {wrong}" in told
    assert not (tmp_path / "s.zarr").exists()


def test_a_store_that_lacks_a_training_image(workspace, tmp_path):
    whole = Manifest.read(workspace.manifest)
    lost = whole.split("train").images()["image_hash"][1]
    Manifest(whole.frame.filter(pl.col("image_hash") != lost), whole.root, "fewer").write(tmp_path / "fewer.parquet")
    store = tmp_path / "fewer.zarr"
    workspace.extract("--manifest", tmp_path / "fewer.parquet", "--out", store)
    told = workspace.train("--set", f"data.store={store}", "--out", tmp_path / "out", code=4).err
    used = whole.split("train").images().height + whole.split("validation").images().height
    assert f"error: 1 of {used} images have no row in {store} (teacher phantom-tiny, {IMAGES - 1} rows)" in told
    assert f"first: {lost[:12]}" in told
    assert f"`medalign store extend {store} --weights FILE --manifest MANIFEST`" in told
    assert "re-encoded, resized or anonymized files are different images" in " ".join(told.split())
    assert not (tmp_path / "out").exists()


def test_a_store_that_does_not_fit(workspace, tmp_path):
    store = tmp_path / "other.zarr"
    workspace.extract("--manifest", workspace.manifest, "--out", store, "--geometry", "crop", grid="4x4")
    overrides = ("--set", f"data.store={store}", "--set", "data.teacher=unimed-b16-224")
    told = workspace.train(*overrides, "--out", tmp_path / "out", code=4).err
    assert f"error: the store {store} does not match this run:" in told
    assert "its grid is 4x4, but the student has 3x3 image tokens: extract again with --grid 3x3, ask" in told
    assert "its geometry is 'crop', but preset 'default' needs 'pad'" in told
    assert "its teacher is 'phantom-tiny', but data.teacher is 'unimed-b16-224'" in told


def test_an_unknown_key_and_a_wrong_type_at_once(workspace, tmp_path):
    overrides = ("--set", "alignment.betta=0.06", "--set", "training.per_device_train_batch_size=many")
    told = workspace.train(*overrides, "--out", tmp_path / "out", code=2).err
    assert f"error: {workspace.config} has 2 problems:" in told
    assert "alignment.betta: unknown key (did you mean 'beta'?)" in told
    assert "training.per_device_train_batch_size:" in told
    assert "found 'many'" in told


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_is_too_long(workspace, tmp_path, workers):
    overrides = ("--set", "training.max_length=20", "--set", f"training.dataloader_num_workers={workers}")
    told = workspace.train(*overrides, "--out", tmp_path / "out", code=3).err
    last = next(line for line in told.splitlines() if line.startswith("error:"))
    assert "tokens, more than training.max_length 20. Questions are never truncated" in last
    assert "Traceback" not in told


def test_an_unfinished_store_is_finished_by_resume(workspace, tmp_path):
    store = tmp_path / "cut.zarr"
    workspace.extract("--manifest", workspace.manifest, "--out", store, "--shard-rows", 4, "--task", "0/2")
    told = run("store", "info", store, code=4).err
    assert f"error: {store} is unfinished: 2 of 3 shards are committed." in told
    assert "medalign teacher extract --resume --teacher phantom-tiny" in told
    assert "unfinished" in workspace.train("--set", f"data.store={store}", "--out", tmp_path / "o", code=4).err
    checked = report("store", "verify", store, code=4)
    assert (checked["verified"], checked["finished"]) == (False, False)
    extract = ("--manifest", workspace.manifest, "--out", store, "--shard-rows", 4)
    assert "Add --resume to continue it" in workspace.extract(*extract, code=3).err
    assert json.loads(workspace.extract(*extract, "--resume", "--json").out)["shards_kept_from_an_earlier_run"] == 2
    assert report("store", "verify", store)["root_sha256"] == workspace.extracted["root_sha256"]


def test_a_damaged_store(workspace, tmp_path):
    store = tmp_path / "damaged.zarr"
    shutil.copytree(workspace.store, store)
    shard = store / "E_v" / "c" / "1" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    result = run("store", "verify", store, "--json", code=4)
    assert json.loads(result.out)["problems"]
    assert f"error: {store} is damaged" in result.err
    assert "E_v/c/1/0/0, row 4: the crc32c of the chunk does not match its bytes" in result.err


def test_an_output_that_exists_is_refused(workspace, tmp_path):
    assert "is not empty: pass another --out" in run("data", "phantom", "--out", workspace.folder, code=3).err
    existing = workspace.extract("--manifest", workspace.manifest, "--out", workspace.store, code=3).err
    assert f"{workspace.store} exists and is finished: a store of phantom-tiny with the grid 3x3." in existing
    told = workspace.train("--out", workspace.adapter, code=3).err
    assert "is not empty: it contains a finished run; pass another --out" in told
    (tmp_path / "file").touch()
    assert "is not empty: pass another --out\n" in workspace.train("--out", tmp_path, "--dry-run", code=3).err
    told = workspace.train("--out", tmp_path / "new", "--resume", code=3).err
    assert "has no complete checkpoint to resume from: start without --resume" in told
    assert "is a file" in workspace.train("--out", tmp_path / "file", code=3).err
    assert "--out is missing" in workspace.train(code=2).err


def test_a_training_run_stopped_before_its_first_checkpoint_starts_again(workspace, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.yaml").touch()
    (out / "log.jsonl").write_text("of the stopped run\n")
    workspace.train("--out", out)
    first = (out / "log.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["step"] == 1


def test_a_finished_run_is_said_to_be_finished(workspace, tmp_path):
    """--resume and the folder are enough."""
    shutil.copytree(workspace.adapter, tmp_path / "run")
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    resume = ("student", "train", "--resume", "--out", tmp_path / "run")
    assert "is finished: all 2 steps are complete. Nothing was changed" in run(*resume).err
    assert report(*resume)["steps"] == 2
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files
    told = run(*resume, "--set", "training.max_steps=4", code=3).err
    assert "training.max_steps: 2 before, 4 now" in told
    (tmp_path / "run" / "config.yaml").unlink()
    assert "has no config.yaml, so there is no run in it to resume" in run(*resume, code=3).err
    assert "CONFIG is missing" in run("student", "train", "--out", tmp_path / "new", code=2).err


def test_a_finished_run_without_its_adapter_says_so(workspace, tmp_path):
    shutil.copytree(workspace.adapter, tmp_path / "run")
    whole = load_file(tmp_path / "run" / "adapter_model.safetensors")
    (tmp_path / "run" / "adapter_model.safetensors").unlink()
    resume = ("student", "train", "--resume", "--out", tmp_path / "run")
    told = run(*resume, code=3).err
    assert "is finished, but adapter_model.safetensors is missing: delete " in told
    (tmp_path / "run" / "summary.json").unlink()  # as it says
    run(*resume)
    again = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_finished_run_whose_adapter_is_cut_says_so(workspace, tmp_path):
    shutil.copytree(workspace.adapter, tmp_path / "run")
    adapter = tmp_path / "run" / "adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:100])
    told = run("student", "train", "--resume", "--out", tmp_path / "run", code=3).err
    assert "is finished, but adapter_model.safetensors is damaged: delete " in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("demo", "--seed", -1), "Invalid value for '--seed'"),
        (("data", "phantom", "--out", "x", "--seed", -1), "Invalid value for '--seed'"),
        (("data", "import", "table", "x.csv", "--out", "/"), "does not end in a name"),
        (("data", "import", "table", "x.csv", "--out", ""), "does not end in a name"),
        (("data", "import", "table", "x.csv", "--out", "x", "--seed", -1), "Invalid value for '--seed'"),
        (("teacher", "extract", "--teacher", "t", "--weights", "w", "--out", "/"), "does not end in a name"),
        (("student", "generate", "--student", "s", "--image", "i", "--question", "\udcff?"), "are not UTF-8"),
    ],
    ids=lambda value: " ".join(map(str, value)).encode("ascii", "replace").decode() if isinstance(value, tuple) else "",
)
def test_values_that_no_command_can_use_are_refused(words, told):
    assert told in " ".join(run(*words, code=2).err.replace("│", " ").split())


def test_missing_things_are_named(workspace, tmp_path):
    absent = tmp_path / "absent"
    evaluate = ("student", "evaluate", "--student", workspace.student, "--out", tmp_path / "e", "--device", "cpu")
    told = run(*evaluate, "--manifest", absent, code=3).err
    assert told.startswith(f"error: {absent} does not exist; create it with `medalign data import")
    told = run(*evaluate, "--manifest", workspace.manifest, "--split", "val", code=3).err
    assert "has no split 'val'; its splits: train (" in told
    told = run(*evaluate, "--manifest", workspace.manifest, "--adapter", absent, code=3).err
    assert told == f"error: {absent} is not a finished adapter: it does not exist; check its spelling\n"
    file = workspace.adapter / "medalign.json"
    told = run(*evaluate, "--manifest", workspace.manifest, "--adapter", file, code=3).err
    assert told == f"error: {file} is not a finished adapter: it is a file; pass its folder, {workspace.adapter}\n"
    (tmp_path / "run/checkpoint-20").mkdir(parents=True)
    (tmp_path / "run/checkpoint-20/trainer_state.json").touch()
    told = run(*evaluate, "--manifest", workspace.manifest, "--adapter", tmp_path / "run", code=3).err
    assert f"Continue it with `medalign student train --resume --out {tmp_path / 'run'}`" in told
    told = run(*evaluate[:2], "--student", absent, *evaluate[4:], "--manifest", workspace.manifest, code=3).err
    assert f"{absent} is not a model folder: it does not exist; check its spelling" in told
    told = run(*evaluate, "--manifest", workspace.manifest, "--root", absent, code=3).err
    assert "image files are missing" in told
    told = run("store", "info", absent, code=4).err
    assert f"{absent} is not a teacher store: zarr.json does not exist, nor does this path: check its spelling" in told
    generate = ("student", "generate", "--student", workspace.student, "--image", absent, "--question", "?")
    assert run(*generate, code=3).err == f"error: image not found: {absent}\n"


def test_options_that_would_do_nothing_are_refused(workspace, tmp_path):
    generate = ("student", "generate", "--student", workspace.student, "--image", tmp_path, "--question", "?")
    wrong = ("--set", "decode.num_beams=3", "--set", "decode.top_p=2")
    told = run(*generate, "--decode", "nucleus", *wrong, code=2).err
    assert "nucleus has no setting 'num_beams'; choose from: seed, temperature, top_p" in told
    assert "top_p: Input should be less than or equal to 1, found 2" in told
    told = run(*generate, "--decode", "beam", "--set", "decode.num_beams=1", code=2).err
    assert "num_beams: Input should be greater than or equal to 2, found 1" in told
    assert "unknown decoding method 'vdc' (did you mean 'vcd'?)" in run(*generate, "--decode", "vdc", code=2).err
    assert (
        "has no setting 'alhpa' (did you mean 'alpha'?)"
        in run(*generate, "--decode", "vcd", "--set", "decode.alhpa=1", code=2).err
    )
    told = run(*generate, "--set", "lora.r=2", code=2).err
    assert "--set must be decode.KEY=VALUE here, such as decode.alpha=0.5; found 'lora'" in told
    both = ("--manifest", workspace.manifest, "--out", tmp_path / "s")
    assert "--data-use only applies to --images" in workspace.extract(*both, "--data-use", "public", code=2).err
    assert (
        "exactly one of --manifest FILE or --images FOLDER"
        in workspace.extract(*both, "--images", tmp_path, code=2).err
    )
    images = ("--images", tmp_path, "--out", tmp_path / "s", "--root", tmp_path)
    assert "--root only applies to --manifest" in workspace.extract(*images, code=2).err
    assert "--grid" in workspace.extract(*both, "--grid", "24", code=2).err


@pytest.mark.parametrize(
    ("module", "function", "arguments", "told"),
    [
        (
            "extraction.extract",
            "run_extraction",
            ("teacher", "extract", "--teacher", "t", "--weights", "w"),
            "finished shards",
        ),
        (
            "evaluation.evaluate",
            "run_evaluation",
            ("student", "evaluate", "--student", "s", "--manifest", "m"),
            "finished answ",
        ),
        (
            "evaluation.grounding.ground",
            "run_grounding",
            ("student", "ground", "--student", "s", "--manifest", "m"),
            "finished bat",
        ),
        ("data.import_manifest", "import_manifest", ("data", "import", "folder", "."), "nothing was written\n"),
        (
            "inspection.inspect_students",
            "run_inspection",
            ("student", "inspect", "--student", "s", "--manifest", "m"),
            "nothing was written\n",
        ),
    ],
)
def test_ctrl_c_tells_what_is_kept(monkeypatch, tmp_path, module, function, arguments, told):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"medalign.pipeline.{module}.{function}", interrupted)
    shown = run(*arguments, "--out", tmp_path / "o", code=130).err
    assert f"interrupted; {told}" in shown
    assert ("--resume" in shown) == ("finished" in told)


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("medalign.pipeline.doctor.doctor.examine", broken)
    result = CliRunner().invoke(app, ["doctor"])
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == 1


def test_decodings_are_listed():
    assert "noise_step=500" in run("student", "decodings").out
    told = report("student", "decodings")
    assert told["vcd"]["settings"]["alpha"]["default"] == 1.0
    assert told["greedy"]["settings"] == {}

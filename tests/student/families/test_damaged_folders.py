"""Every damaged model folder is reported in one line that names the file, for every command and format."""

import errno
import json
import os
import re
import resource
import shutil
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from medalign.cli import app
from medalign.errors import InputError, MedalignError
from medalign.pipeline.data.importers.common import read_images
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import read_adapter_record, save_adapter
from medalign.student.folders import model_folder as folders_module
from medalign.student.folders.convert import convert_original
from medalign.student.loading.student_loading import load_student
from originals import write_original
from safetensors.torch import load_file, save_file
from students import adapter_record, trainable, write_images, write_tiny_student
from typer.testing import CliRunner

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
PREPROCESSOR = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.3, 0.3, 0.3]}
RECORD = {
    "source": "base",
    "source_fingerprint": "0",
    "family": None,
    "template": "plain",
    "layers": [],
    "rotation": "none",
    "format": "medalign-student",
    "version": 1,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A base with every optional file, its adapter, an original checkpoint, and questions for them."""
    folder = tmp_path_factory.mktemp("whole")
    base = folder / "base"
    write_tiny_student(base)
    (base / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    (base / "medalign-student.json").write_text(json.dumps(RECORD))
    (base / "special_tokens_map.json").write_text("{}")
    student = trainable(base)
    save_adapter(student.model, adapter_record(student), folder / "adapter")
    write_original(folder / "original", "llava-med")
    (folder / "original" / "generation_config.json").write_text('{"eos_token_id": 2}')
    names = [path.name for path in write_images(folder / "images", [(24, 24), (40, 20)])]
    columns = read_images(folder / "images", names, Silent()).columns
    rows = [
        ManifestRow(question_id=name, question="What?", answer="yes", split="train", data_use="public", **columns[name])
        for name in names
    ]
    Manifest.from_rows(rows, folder / "images", "bench").write(folder / "manifest.parquet")
    return folder


@pytest.fixture
def place(whole, tmp_path):
    """A copy to be damaged."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


# Ways to damage a file


def gone(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def pointer(path):
    path.write_text(POINTER)


def binary(path):
    path.write_bytes(bytes(range(128, 256)))


def a_list(path):
    path.write_text("[]")


def a_folder(path):
    path.unlink()
    path.mkdir()


def sets(**values):
    """Set fields of a JSON file, at any depth (`text_config__hidden_size`); None removes a field."""

    def harm(path):
        content = json.loads(path.read_text())
        for name, value in values.items():
            *outer, last = name.split("__")
            inner = content
            for part in outer:
                inner = inner[part]
            inner[last] = value
            if value is None:
                del inner[last]
        path.write_text(json.dumps(content))

    harm.__name__ = "sets " + ", ".join(f"{name}={value}"[:60] for name, value in values.items())
    return harm


def tensors(change):
    def harm(path):
        values = load_file(path)
        change(values, sorted(values)[0])
        save_file(values, path, metadata={"format": "pt"})

    harm.__name__ = change.__name__
    return harm


@tensors
def one_tensor_missing(values, name):
    del values[name]


@tensors
def one_tensor_too_many(values, name):
    values["stranger"] = torch.ones(2)


@tensors
def another_shape(values, name):
    values[name] = torch.ones(3, 5)


@tensors
def integers(values, name):
    values[name] = torch.ones(values[name].shape, dtype=torch.int8)


@tensors
def not_finite(values, name):
    values[name].view(-1)[0] = torch.nan


def header_lies(path):
    """Make the header declare four times as many bytes for the first tensor as there are."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    first = next(value for name, value in header.items() if name != "__metadata__")
    first["shape"] = [4 * first["shape"][0], *first["shape"][1:]]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def header_is_huge(path):
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])


JSON_HARMS = (cut, a_list, pointer)
WEIGHT_HARMS = (
    gone,
    cut,
    emptied,
    pointer,
    header_lies,
    header_is_huge,
    one_tensor_missing,
    one_tensor_too_many,
    another_shape,
    integers,
    not_finite,
    a_folder,
)
BASE = {
    "config.json": (
        *JSON_HARMS,
        binary,
        emptied,
        gone,
        a_folder,
        sets(model_type="llama"),
        sets(text_config__hidden_size="four"),
        sets(text_config=[1]),
        sets(text_config=None),
        sets(vision_config={}),
        sets(text_config__intermediate_size=10**9),
        sets(vision_config__patch_size=0),
        sets(vision_config__image_size=-24),
        sets(vision_feature_layer=-9),
        sets(vision_feature_select_strategy="full"),
        sets(image_token_id=9999, image_token_index=9999),
        sets(image_token_id=-1, image_token_index=-1),
        sets(text_config__num_attention_heads=3),
    ),
    "model.safetensors": WEIGHT_HARMS,
    "generation_config.json": (*JSON_HARMS, sets(eos_token_id="</s>"), sets(eos_token_id=[2, "x"])),
    "tokenizer.json": (*JSON_HARMS, gone, sets(model=3), sets(added_tokens=3)),
    "tokenizer_config.json": (*JSON_HARMS, sets(eos_token=None), sets(tokenizer_class=3)),
    "special_tokens_map.json": JSON_HARMS,
    "preprocessor_config.json": (
        *JSON_HARMS,
        sets(image_mean="gray"),
        sets(image_mean=[0.5, 0.5]),
        sets(image_std=None),
        sets(image_std=[0.3, 0, 0.3]),
    ),
    "medalign-student.json": (
        *JSON_HARMS,
        sets(template=None),
        sets(layers="all"),
        sets(rotation="half"),
        sets(data_use="mine"),
        sets(version=9),
        sets(stranger=1),
    ),
}
ADAPTER = {
    "medalign.json": (
        *JSON_HARMS,
        gone,
        sets(base_fingerprint=None),
        sets(layers=["two"]),
        sets(trained={"language_model": "some"}),
        sets(rotation=1),
        sets(version="1"),
        sets(base="x" * 300),
        sets(layers=[99]),
    ),
    "adapter_config.json": (*JSON_HARMS, gone, sets(r="four"), sets(r=0), sets(target_modules=7), sets(peft_type=None)),
    "adapter_model.safetensors": WEIGHT_HARMS,
    "rotation.safetensors": (gone, pointer, cut, one_tensor_missing, another_shape, not_finite),
}
ORIGINAL = {
    "config.json": (
        *JSON_HARMS,
        sets(architectures=3),
        sets(hidden_size="four"),
        sets(hidden_act=3),
        sets(num_attention_heads=5),
        sets(mm_vision_select_layer=-9),
        sets(rope_theta="big"),
    ),
    "model.safetensors": WEIGHT_HARMS,
    "generation_config.json": (*JSON_HARMS, sets(eos_token_id="</s>")),
    "tokenizer.model": (gone, cut, pointer, emptied),
    "tokenizer_config.json": JSON_HARMS,
    "vit/clip_tiny/config.json": (*JSON_HARMS, sets(vision_config__patch_size=0), sets(vision_config=3)),
}


def cases(kind, files):
    return [
        pytest.param(kind, file, harm, id=f"{kind}-{file}-{harm.__name__}")
        for file, harms in files.items()
        for harm in harms
    ]


def commands(place, kind):
    """Commands that read a folder, by name."""
    questions = ("--manifest", place / "manifest.parquet", "--split", "train", "--max-new-tokens", 2, "--device", "cpu")
    student = place / kind
    found = {"evaluate": ("student", "evaluate", "--student", student, *questions, "--out", place / "scores")}
    if kind != "adapter":
        config = {
            "student": {"path": str(student)},
            "data": {"manifest": str(place / "manifest.parquet")},
            "alignment": {"layer": 1, "alpha": 0.0, "beta": 0.0},
            "training": {"max_steps": 1, "dataloader_num_workers": 0, "device": "cpu"},
        }
        (place / "run.yaml").write_text(yaml.safe_dump(config))
        found["plan"] = ("student", "train", place / "run.yaml", "--dry-run")
    if kind != "original":
        found["export"] = ("student", "export", place / "adapter", "--out", place / "out")
    else:
        found["convert"] = ("student", "convert", student, "--out", place / "out")
    return found


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize(
    ("kind", "file", "harm"), [*cases("base", BASE), *cases("adapter", ADAPTER), *cases("original", ORIGINAL)]
)
def test_every_damaged_file_is_named_in_one_message(place, kind, file, harm):
    harm(place / kind / file)
    with pytest.raises(MedalignError) as caught:
        load_student(place / kind)
    assert names_it(str(caught.value), kind, file), caught.value
    places = sum(map(ord, file + harm.__name__))
    if places % 3:  # commands report the same error as loading; a third of the cases is enough to check that
        return
    found = commands(place, kind)
    name = sorted(found)[places // 3 % len(found)]
    result = run(*found[name])
    assert isinstance(result.exception, SystemExit), (name, result.exception)
    assert result.exit_code == caught.value.exit_code, (name, result.stderr)
    assert result.exit_code in (2, 3)
    error = error_text(result)
    assert names_it(error, kind, file), error
    assert error.count("\n") == 1 or re.search("do not match|is not supported", error), error
    assert not list(place.glob("*out*"))


def error_text(result):
    """The error that a command printed, without the progress bar before it."""
    return result.stderr[result.stderr.index("error: ") :]


def names_it(message, kind, file):
    """Whether a message names the file; for a missing or mismatched file, the folder is enough."""
    return file in message or re.search(rf"{kind}[ :(]|its tokenizer|alignment\.layer", message) is not None


@pytest.mark.parametrize("kind", ["base", "adapter", "original"])
def test_undamaged_folders_work_with_every_command(place, kind):
    """Counterpart of the test above: without damage there is no error."""
    for name, arguments in commands(place, kind).items():
        result = run(*arguments)
        assert result.exit_code == 0, (name, result.stderr, result.exception)


def test_files_instead_of_folders_and_invalid_names_are_reported(place):
    long = place / ("x" * 300)
    questions = ("--manifest", place / "manifest.parquet", "--split", "train", "--device", "cpu")
    questions = (*questions, "--out", place / "scores")
    for path in (place / "manifest.parquet", place / "none", long, Path("x" * 5000)):
        for arguments in (
            ("evaluate", "--student", path, *questions),
            ("evaluate", "--student", place / "base", "--adapter", path, *questions),
            ("export", path, "--out", place / "out"),
            ("export", place / "adapter", "--student", path, "--out", place / "out"),
            ("convert", path, "--out", place / "out"),
        ):
            result = run("student", *arguments)
            assert (result.exit_code, type(result.exception)) == (3, SystemExit), (arguments, result.exception)
            assert error_text(result).count("\n") == 1, result.stderr
            assert path.name[:200] in result.stderr
    for out in (long, place / "manifest.parquet", place / "manifest.parquet" / "below"):
        for arguments in (("export", place / "adapter"), ("convert", place / "original")):
            result = run("student", *arguments, "--out", out)
            assert isinstance(result.exception, SystemExit), (arguments, result.exception)
            assert result.exit_code in (1, 3)
            assert out.name[:200] in result.stderr


def test_files_without_read_permission_are_reported(place, monkeypatch):
    """Root can read everything, so the error is raised where Python opens files."""
    opened = Path.open

    def guarded(self, *arguments, **options):
        if self.name in denied:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", guarded)
    for kind, files in (("base", BASE), ("adapter", ADAPTER), ("original", ORIGINAL)):
        for file in files:
            denied = {Path(file).name}
            with pytest.raises(InputError, match=rf"{Path(file).name} cannot be read: Permission denied"):
                load_student(place / kind)


@contextmanager
def limited_file_size(limit):
    """Limit the size of files, so that the system refuses writes as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [300, 20_000])
def test_a_full_disk_leaves_no_partial_output(place, limit):
    arguments = {**commands(place, "adapter"), **commands(place, "original")}
    for name in ("export", "convert"):
        with limited_file_size(limit):
            result = run(*arguments[name])
        assert (result.exit_code, type(result.exception)) == (1, SystemExit), (name, result.exception)
        assert re.search(r"error: .*out cannot be written: .*(too large|os error 27)", result.stderr), result.stderr
        assert not [path for path in place.iterdir() if "out" in path.name]
    with limited_file_size(limit // 300):
        result = run(*arguments["evaluate"])
    assert (result.exit_code, type(result.exception)) == (1, SystemExit), result.exception
    assert "cannot be written" in result.stderr
    assert run(*arguments["evaluate"], "--resume").exit_code in (0, 3)


def test_the_systems_message_for_a_full_disk_is_shown(place, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place / "out" / "model.safetensors"))

    monkeypatch.setattr(folders_module.LlavaProcessor, "save_pretrained", full)
    with pytest.raises(MedalignError, match=r"out cannot be written: .*No space left on device") as caught:
        convert_original(place / "original", place / "out", dtype=None, progress=Silent())
    assert caught.value.exit_code == 1
    student = trainable(place / "base")
    with limited_file_size(5000), pytest.raises(MedalignError, match="half cannot be written"):
        save_adapter(student.model, adapter_record(student), place / "half")
    with pytest.raises(InputError, match="not a finished adapter"):
        read_adapter_record(place / "half")

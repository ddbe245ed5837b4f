"""Training from an adapter is training from its export, to the bit; the new adapter has a copy of the one before it."""

import shutil

import pytest
import torch
from align_labs import align_values, make_align_lab
from labs import lab_settings
from medalign.errors import InputError, SettingsError
from medalign.pipeline.align.align_settings import load_align_settings
from medalign.pipeline.align.align_student import run_align
from medalign.pipeline.model_folders import export_student
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings_loading import settings_of
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import read_adapter_record
from medalign.student.adapters.student_record import fingerprint_adapter
from medalign.student.folders.student_facts import read_facts
from medalign.student.loading.start_adapter import copy_start
from medalign.student.loading.student_loading import load_student
from safetensors.torch import load_file

WEIGHTS = ("adapter_model.safetensors", "rotation.safetensors")


def labelled(lab, start, **training):
    values = lab_settings(lab, max_steps=2, save_steps=1, **training)
    values["student"] |= {"path": str(start), "dtype": "float32"}
    return values


def train(values, out, *, resume=False):
    return run_training(settings_of(values, ()), out, Silent(), resume=resume)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A lab with `aligned`, an adapter of tower (LoRA) and projector, and its export, `model`."""
    folder = make_align_lab(tmp_path_factory.mktemp("lab"))
    values = align_values(folder, steps=2, learning_rate=1e-2) | {"trainable": {"projector": "full"}}
    run_align(load_align_settings(values, None, resume=False), folder / "aligned", Silent())
    export_student(folder / "aligned", folder / "model", base=None, dtype=None, evaluations=(), progress=Silent())
    train(labelled(folder, folder / "aligned"), folder / "trained")
    return folder


def tokens_of(folder):
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    return load_student(folder).model.image_tokens(pixels)


def test_it_is_training_from_the_export_to_the_bit(lab, tmp_path):
    train(labelled(lab, lab / "model"), tmp_path / "b")
    for name in WEIGHTS:
        ours, theirs = load_file(lab / "trained" / name), load_file(tmp_path / "b" / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    export_student(lab / "trained", tmp_path / "c", base=None, dtype=None, evaluations=(), progress=Silent())
    ours, theirs = dict(load_student(tmp_path / "c").model.named_parameters()), load_student(tmp_path / "b").model
    assert all(torch.equal(ours[name], value) for name, value in theirs.named_parameters())
    assert "which trained: " in (tmp_path / "c" / "README.md").read_text()


def test_the_record_names_the_base_and_the_start(lab):
    record, before = read_adapter_record(lab / "trained"), read_adapter_record(lab / "aligned")
    assert (record.base_fingerprint, record.version) == (before.base_fingerprint, 2)
    assert record.start.adapter_fingerprint == fingerprint_adapter(lab / "aligned")
    assert record.start.trained == {"vision_tower": "lora", "projector": "full"}
    assert "start" not in (lab / "aligned" / "medalign.json").read_text()
    names = {path.name for path in (lab / "trained" / "start").iterdir()}
    assert names == {"medalign.json", "adapter_config.json", "adapter_model.safetensors", "projector.safetensors"}
    facts = read_facts(lab / "trained", None, dtype="auto", template=None, keep_lora_apart=False)
    assert facts.base.samefile(lab / "student")
    plan = plan_training(settings_of(labelled(lab, lab / "aligned"), ()))
    assert plan.summary()["starts_from"].startswith(f"adapter {fingerprint_adapter(lab / 'aligned')[:12]} (")


def test_the_folder_is_complete_without_the_start_and_changes_of_its_copy_are_refused(lab, tmp_path):
    shutil.copytree(lab / "student", tmp_path / "student")
    shutil.copytree(lab / "trained", tmp_path / "trained")
    with torch.no_grad():
        assert torch.equal(tokens_of(tmp_path / "trained"), tokens_of(lab / "aligned"))
        assert torch.equal(tokens_of(tmp_path / "trained" / "checkpoint-1"), tokens_of(lab / "aligned"))
    fingerprint = fingerprint_adapter(tmp_path / "trained")
    weights = tmp_path / "trained" / "start" / "projector.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match=r"trained from an adapter with fingerprint .*, but .*start has"):
        load_student(tmp_path / "trained")
    weights.unlink()
    with pytest.raises(InputError, match=r"start/projector\.safetensors is missing: delete .*summary\.json"):
        train(labelled(lab, lab / "aligned"), tmp_path / "trained", resume=True)
    shutil.rmtree(tmp_path / "trained" / "start")
    with pytest.raises(InputError, match=r"whose copy .*start is missing"):
        load_student(tmp_path / "trained")
    assert fingerprint_adapter(tmp_path / "trained") == fingerprint != fingerprint_adapter(lab / "model")


def test_a_resumed_run_is_bitwise_the_uninterrupted_one_and_has_the_same_start(lab, tmp_path):
    out = tmp_path / "killed"
    shutil.copytree(lab / "trained", out, ignore=shutil.ignore_patterns("checkpoint-2", "start"))
    for name in ("medalign.json", "summary.json", *WEIGHTS):
        (out / name).unlink()
    with pytest.raises(InputError, match=r"the adapter that it starts from: [0-9a-f]{64} before, none now"):
        train(labelled(lab, lab / "student"), out, resume=True)
    assert train(labelled(lab, lab / "aligned"), out, resume=True).result.resumed_from == 1
    for name in WEIGHTS:
        ours, theirs = load_file(out / name), load_file(lab / "trained" / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert fingerprint_adapter(out) == fingerprint_adapter(lab / "trained")


def test_a_third_stage_starts_from_the_second(lab, tmp_path):
    plain = labelled(lab, lab / "trained")
    with pytest.raises(SettingsError, match=r"is an adapter whose W acts at layer .* alignment\.layer"):
        train(plain | {"alignment": {"layer": 0, "alpha": 0, "beta": 0, "rotation": "none"}}, tmp_path / "none")
    student = plan_training(settings_of(plain, ())).student
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(student.model.image_tokens(pixels), tokens_of(lab / "aligned"))
    assert student.start.trained == {"vision_tower": "lora", "projector": "full", "language_model": "lora"}
    (W,) = student.model.rotations.values()
    assert torch.equal(W.weight, next(iter(load_file(lab / "trained" / "rotation.safetensors").values())))
    copy_start(student.start, tmp_path)
    assert (tmp_path / "start" / "start" / "projector.safetensors").is_file()
    assert fingerprint_adapter(tmp_path / "start") == student.start.adapter_fingerprint
    assert read_adapter_record(tmp_path / "start").start.folder == "start"
    quantized = labelled(lab, lab / "trained")
    quantized["student"] |= {"quantization": "4bit"}
    with pytest.raises(SettingsError, match="cannot be merged into quantized weights"):
        plan_training(settings_of(quantized, ()))


def test_an_adapter_without_its_base_is_refused_with_the_command(lab, tmp_path):
    shutil.copytree(lab / "aligned", tmp_path / "elsewhere" / "aligned")
    with pytest.raises(InputError, match=r"does not exist\. To train from this adapter.*export .*--student BASE"):
        plan_training(settings_of(labelled(lab, tmp_path / "elsewhere" / "aligned"), ()))

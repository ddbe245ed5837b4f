"""Fingerprints of bases: equal in every format, different if any weight or relevant setting differs."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from medalign.errors import InputError
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import AdapterRecord, add_lora, save_adapter
from medalign.student.adapters.student_record import STUDENT_RECORD, StudentRecord, write_student_record
from medalign.student.families.bases import fingerprint_base
from medalign.student.families.fingerprints import SAMPLE
from medalign.student.folders.convert import convert_original
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.loading.student_loading import load_student, open_student
from originals import TOWER_NAME, VISION, save_weights, write_original
from safetensors.torch import load_file, save_file
from students import sample, write_images, write_tiny_student

LAYER = 1


def convert(folder, out, dtype=None):
    convert_original(folder, out, dtype=dtype, progress=Silent())
    return out


@pytest.mark.parametrize("family", ["llava-med", "huatuo", "llava"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_format_of_the_same_weights_has_one_fingerprint(tmp_path, family, dtype):
    first = write_original(tmp_path / "first", family, dtype=dtype).folder
    expected = fingerprint_base(first)
    others = {"sharded": {"shards": 3}, "bin": {"kind": "bin", "shards": 2}, "apart": {"tower_apart": True}}
    for name, files in others.items():
        assert fingerprint_base(write_original(tmp_path / name, family, dtype=dtype, **files).folder) == expected, name
    assert fingerprint_base(convert(first, tmp_path / "converted")) == expected
    assert fingerprint_base(convert(first, tmp_path / "wide", "float32")) == expected, (
        "the same values in a wider precision"
    )
    assert fingerprint_base(convert(first, tmp_path / "rounded", "float16")) != expected
    assert open_student(first, layers=(), rotation="none", dtype="float16").base_fingerprint == expected
    assert load_student(tmp_path / "converted").base_fingerprint == expected


def test_a_tied_table_that_is_stored_twice_counts_once(tmp_path):
    original = write_original(tmp_path / "model", "llava", tied=True)
    expected = fingerprint_base(original.folder)
    table = original.tensors["model.embed_tokens.weight"]
    save_weights(original.tensors | {"lm_head.weight": table.clone()}, original.folder)
    assert fingerprint_base(original.folder) == expected


@pytest.mark.parametrize("converted", [False, True])
def test_every_tensor_changes_the_fingerprint(tmp_path, converted):
    original = write_original(tmp_path / "model", "huatuo")
    folder = convert(original.folder, tmp_path / "converted") if converted else original.folder
    tensors = load_file(folder / "model.safetensors")
    seen = {fingerprint_base(folder)}
    names = [name for name in tensors if ".layers." not in name or ".layers.1." in name]
    for name in names:
        changed = tensors[name].clone()
        changed.view(-1)[min(SAMPLE, changed.numel()) - 1] += 1
        save_file(tensors | {name: changed}, folder / "model.safetensors", metadata={"format": "pt"})
        seen.add(fingerprint_base(folder))
    assert len(seen) == len(names) + 1


def test_a_separate_tower_changes_the_fingerprint(tmp_path):
    original = write_original(tmp_path / "model", "huatuo", tower_apart=True)
    before = fingerprint_base(original.folder)
    tower = {name.removeprefix(TOWER_NAME): value for name, value in original.tensors.items() if "vision" in name}
    save_weights({name: value + 1 for name, value in tower.items()}, original.folder / VISION)
    assert fingerprint_base(original.folder) != before


def test_only_configuration_that_affects_the_output_counts(tmp_path):
    folder = write_original(tmp_path / "model", "llava-med").folder
    config = json.loads((folder / "config.json").read_text())
    before = fingerprint_base(folder)
    changes = {"rope_theta": 500.0, "rms_norm_eps": 0.5, "mm_vision_select_layer": -3, "num_attention_heads": 2}
    for name, value in changes.items():
        other = config | {name: value} | ({"num_key_value_heads": 1} if name == "num_attention_heads" else {})
        if name == "num_attention_heads":
            other["head_dim"] = 16
        (folder / "config.json").write_text(json.dumps(other))
        assert fingerprint_base(folder) != before, name
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "4.99", "use_cache": False}))
    assert fingerprint_base(folder) == before


def test_an_exported_students_w_counts_and_is_never_silently_ignored(tmp_path):
    write_tiny_student(tmp_path / "base")
    before = fingerprint_base(tmp_path / "base")
    record = StudentRecord(
        source="base", source_fingerprint=before, family=None, template="plain", layers=(1,), rotation="full"
    )
    seen = {before}
    for value in (1.0, 2.0):
        save_file({"layers.1": torch.full((64, 64), value)}, tmp_path / "base" / "rotation.safetensors")
        write_student_record(record, tmp_path / "base")
        seen.add(fingerprint_base(tmp_path / "base"))
    assert len(seen) == 3
    for wrong in (None, replace(record, rotation="none", layers=())):
        (tmp_path / "base" / STUDENT_RECORD).unlink(missing_ok=True)
        if wrong is not None:
            write_student_record(wrong, tmp_path / "base")
        with pytest.raises(InputError, match=r"contains rotation\.safetensors, but .* so W would not be applied"):
            fingerprint_base(tmp_path / "base")
        with pytest.raises(InputError, match=r"contains rotation\.safetensors, but .* so W would not be applied"):
            load_student(tmp_path / "base")


def test_fingerprint_rejects_folders_without_a_student(tmp_path):
    write_tiny_student(tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"a config\.json but no weights"):
        fingerprint_base(tmp_path / "base")
    with pytest.raises(InputError, match=r"it has no config\.json"):
        fingerprint_base(tmp_path)
    shutil.copytree(tmp_path / "base", tmp_path / "llama")
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="contains a 'llama' model"):
        fingerprint_base(tmp_path / "llama")


@pytest.mark.parametrize("family", ["llava-med", "huatuo"])
def test_an_adapter_loads_on_its_base_in_either_format(tmp_path, family):
    """Trained on the original checkpoint, loaded on the converted one: same fingerprint and losses."""
    original = write_original(tmp_path / "model", family).folder
    converted = convert(original, tmp_path / "converted")
    student = open_student(original, layers=(LAYER,), rotation="full")
    add_lora(student.model, base=student.base, rank=2, alpha=4, dropout=0.0)
    with torch.no_grad():
        for name, value in student.model.named_parameters():
            if "lora_B" in name or "rotation" in name:
                value.normal_(std=0.1)
    record = AdapterRecord(
        base=str(original),
        base_fingerprint=student.base_fingerprint,
        layers=(LAYER,),
        rotation="full",
        template=student.template_name,
        attention_normalisation="sum",
        store=None,
        settings={},
    )
    save_adapter(student.model, record, tmp_path / "adapter")
    question = sample("What is it?", "yes", *write_images(tmp_path / "images", [(24, 20)]))
    found = []
    for loaded in (load_student(tmp_path / "adapter"), load_student(converted, adapter=tmp_path / "adapter")):
        batch = Collator(pad_token_id=0)([encode_sample(loaded, question, with_answer=True)])
        with torch.no_grad():
            output = loaded.model(**batch, E_v=torch.ones(1, 9, 5), E_a=torch.ones(1, 9))
        found.append(torch.cat([output.loss_lm, output.loss_vis, output.loss_att]))
    assert torch.equal(*found)
    other = write_original(tmp_path / "other", family, seed=9).folder
    with pytest.raises(InputError, match="was trained on a base with fingerprint"):
        load_student(other, adapter=tmp_path / "adapter")

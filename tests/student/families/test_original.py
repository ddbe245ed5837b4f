"""Original LLaVA checkpoints load strictly and compute the correct logits; invalid ones are reported."""

import json
import os
import pickle
import shutil

import pytest
import torch
from medalign.errors import InputError
from medalign.student.families.original import load_original, read_original
from medalign.student.families.original.original_checkpoint import expected_shapes
from medalign.student.families.original.original_config import llava_config, text_config
from medalign.student.families.original.original_format import KNOWN_TOWERS, find_family
from medalign.student.families.original.tensor_matching import match_tensors
from medalign.student.inputs.collation import encode_sample, prompt_ids
from medalign.student.loading.student_loading import load_student, open_student
from medalign.student.prompts.templates import Prompt
from originals import FULL_SIZE, TOWER_NAME, VISION, save_weights, text_shapes, tower_shapes, write_original
from originals import llava_config as published_config
from straight_llava import IMAGE, straight_forward
from students import sample, write_images
from transformers import CLIPVisionConfig

LAYER = 1
FILES = [
    ("llava-med", {"kind": "safetensors", "shards": 4}),
    ("llava-med", {"kind": "bin", "shards": 1}),
    ("huatuo", {"kind": "safetensors", "shards": 1, "tower_apart": True}),
    ("huatuo", {"kind": "bin", "shards": 3, "tower_apart": True}),
    ("huatuo", {"kind": "safetensors", "shards": 2}),
    ("llava", {"kind": "bin", "shards": 2, "tower_apart": True}),
    ("llava", {"kind": "safetensors", "shards": 1, "tied": True}),
]


@pytest.fixture
def question(tmp_path):
    paths = write_images(tmp_path / "images", [(24, 24), (40, 20)])
    return sample("What is it?", "yes", *paths, history=(("Which side?", "no"),))


def original_ids(student, encoded) -> list[int]:
    """The sequence with one IMAGE in place of each run of image tokens."""
    ids, run = [], 0
    for number in encoded.input_ids.tolist():
        run = (run + 1) % student.model.patches if number == student.model.image_token_id else 0
        if number != student.model.image_token_id or run == 1:
            ids.append(IMAGE if number == student.model.image_token_id else number)
    return ids


def model_logits(student, encoded) -> torch.Tensor:
    with torch.no_grad():
        output = student.model.llava(
            input_ids=encoded.input_ids[None],
            attention_mask=torch.ones_like(encoded.input_ids)[None],
            pixel_values=encoded.pixel_values,
        )
    return output.logits[0]


@pytest.mark.parametrize(("family", "files"), FILES)
def test_logits_equal_those_of_the_reference_forward_pass(tmp_path, question, family, files):
    original = write_original(tmp_path / "model", family, **files)
    student = open_student(original.folder, layers=(LAYER,), rotation="full")
    student.model.eval()
    encoded = encode_sample(student, question, with_answer=True)
    ids = original_ids(student, encoded)
    assert ids.count(IMAGE) == 2
    rows = original.shape.rows
    expected = straight_forward(original.tensors, original.shape, ids, encoded.pixel_values).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(model_logits(student, encoded)[:, :rows], expected, atol=1e-4, rtol=0)
    W = 0.1 * torch.randn(original.shape.width, original.shape.width, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        student.model.rotations[LAYER].weight.copy_(W)
    rotated = straight_forward(original.tensors, original.shape, ids, encoded.pixel_values, W, LAYER).logits
    assert (rotated - expected).abs().max() > 0.1
    torch.testing.assert_close(model_logits(student, encoded)[:, :rows], rotated, atol=1e-4, rtol=0)


def test_config_fields_affect_the_logits(tmp_path, question):
    """Rope theta, epsilon and feature layer change the logits, so the comparison above checks them."""
    folder = write_original(tmp_path / "model", "llava-med").folder
    student = load_student(folder)
    encoded = encode_sample(student, question, with_answer=True)
    before = model_logits(student, encoded)
    for name, value in {"rope_theta": 500.0, "rms_norm_eps": 0.5, "mm_vision_select_layer": -3}.items():
        config = json.loads((folder / "config.json").read_text())
        shutil.copytree(folder, tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps(config | {name: value}))
        assert (model_logits(load_student(tmp_path / name), encoded) - before).abs().max() > 1e-3, name


@pytest.mark.parametrize("family", list(FULL_SIZE))
def test_full_size_checkpoints_map_every_key(family):
    """The published 7B shapes, without weights: the names map one to one."""
    shape = FULL_SIZE[family]
    config = published_config(shape)
    detected = find_family(config)
    assert detected is not None
    vision = CLIPVisionConfig(**KNOWN_TOWERS["clip-vit-large-patch14-336"])
    llava = llava_config(text_config(config, detected), vision, image_token_id=7, feature_layer=-2)
    published = text_shapes(shape) | {TOWER_NAME + name: size for name, size in tower_shapes(shape).items()}
    mapping = match_tensors(published, expected_shapes(llava, rows=shape.rows), detected.renames, "here")
    assert set(mapping) == set(published)
    assert len(set(mapping.values())) == len(mapping) == {"llava-med": 686, "huatuo": 734, "llava": 686}[family]
    text = llava.text_config
    assert (text.rope_parameters["rope_theta"], text.num_key_value_heads) == (shape.theta, shape.kv_heads)
    assert text.sliding_window is None if family != "llava" else not hasattr(text, "sliding_window")
    assert (llava.image_seq_length, llava.vision_feature_layer) == (576, -2)
    parameters = sum(torch.Size(size).numel() for size in published.values())
    assert parameters == {"llava-med": 7_566_219_264, "huatuo": 7_935_646_208, "llava": 7_062_902_784}[family]


def with_tensors(original, **changes):
    """The same folder with some tensors replaced, or removed (None)."""
    tensors = {**original.tensors, **{name.replace("__", "."): value for name, value in changes.items()}}
    for file in original.folder.glob("model*"):
        file.unlink()
    save_weights({name: value for name, value in tensors.items() if value is not None}, original.folder)
    return original.folder


def test_missing_unexpected_and_misshapen_tensors_are_all_listed(tmp_path):
    original = write_original(tmp_path / "model", "llava-med")
    missing = {f"model.layers.{layer}.mlp.up_proj.weight".replace(".", "__"): None for layer in range(3)}
    folder = with_tensors(
        original,
        **missing,
        model__norm__weight=None,
        model__strange__weight=torch.ones(2),
        lm_head__weight=torch.ones(5, 32),
    )
    with pytest.raises(InputError) as caught:
        read_original(folder)
    message = str(caught.value)
    assert "4 missing, 1 unexpected, 1 of the wrong shape" in message
    assert "missing: model.norm.weight" in message
    assert "missing: model.layers.*.mlp.up_proj.weight (3 layers: 0-2)" in message
    assert "unexpected: model.strange.weight" in message
    assert f"lm_head.weight is [5, 32], but [{original.shape.rows}, 32] according to config.json" in message
    assert "LLaVA-Med-1.5" in message


@pytest.mark.parametrize(
    ("change", "looks_like"),
    [
        ({"architectures": ["LlavaMistralForCausalLM"]}, "a LLaVA with Qwen2, such as HuatuoGPT-Vision"),
        ({"num_key_value_heads": 4}, "k_proj.weight (3 layers: 0-2)"),
    ],
)
def test_a_config_of_another_family_is_reported(tmp_path, change, looks_like):
    folder = write_original(tmp_path / "model", "huatuo").folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError) as caught:
        read_original(folder)
    if "architectures" in change:
        assert "unexpected: model.layers.*.self_attn.q_proj.bias (3 layers: 0-2)" in str(caught.value)
        assert looks_like in str(caught.value)
    else:
        assert "12 of the wrong shape" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "looks_like"),
    [
        ("model.image_newline", "LLaVA-1.6"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "LoRA adapter"),
    ],
)
def test_an_unexpected_tensor_is_reported_with_its_likely_origin(tmp_path, name, looks_like):
    folder = with_tensors(write_original(tmp_path / "model", "llava-med"), **{name: torch.ones(32)})
    with pytest.raises(InputError, match=looks_like):
        read_original(folder)


def test_buffers_of_old_releases_are_checked_and_ignored(tmp_path):
    original = write_original(tmp_path / "model", "llava")
    size = original.shape.head
    frequencies = original.shape.theta ** -(torch.arange(0, size, 2) / size)
    positions = f"{TOWER_NAME}vision_model.embeddings.position_ids"
    rotary = "model.layers.0.self_attn.rotary_emb.inv_freq"
    good = {rotary: frequencies, positions: torch.arange(10)[None]}
    load_original(read_original(with_tensors(original, **good)))
    with pytest.raises(InputError, match=r"inv_freq does not match config\.json"):
        load_original(read_original(with_tensors(original, **good | {rotary: frequencies * 2})))


class Evil:
    def __reduce__(self):
        return (os.system, ("touch was-here",))


def test_a_pickle_with_code_is_refused_without_running_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_original(tmp_path / "model", "llava-med", kind="bin").folder
    torch.save({"model.norm.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="could run code"):
        read_original(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Evil()}))
    with pytest.raises(InputError, match="could run code"):
        read_original(folder)
    assert not (tmp_path / "was-here").exists()


def test_old_pickles_that_are_not_zip_files_can_be_read(tmp_path, question):
    original = write_original(tmp_path / "model", "llava-med", kind="bin")
    torch.save(original.tensors, original.folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    read_original(original.folder)


def test_incomplete_folders_are_reported(tmp_path):
    folder = write_original(tmp_path / "model", "llava-med", shards=3).folder
    pointer = folder / "model-00002-of-00003.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="git lfs pull"):
        read_original(folder)
    pointer.write_bytes(b"\x00" * 64)
    with pytest.raises(InputError, match="not a complete safetensors file"):
        read_original(folder)
    pointer.unlink()
    with pytest.raises(InputError, match="1 of 3 weight files are missing: model-00002-of-00003"):
        read_original(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(InputError, match="outside its folder"):
        read_original(folder)
    index.write_text("[]")
    with pytest.raises(InputError, match=r"index\.json is not a JSON object: it contains a list"):
        read_original(folder)
    index.write_text('{"weight_map": {"a": 3}}')
    with pytest.raises(InputError, match="not an index of weight files"):
        read_original(folder)
    index.unlink()
    with pytest.raises(InputError, match="has no weights"):
        read_original(folder)


@pytest.mark.parametrize("family", ["llava-med", "huatuo"])
def test_a_tower_outside_the_model_folder_is_never_used(tmp_path, family):
    """Neither from the path or name in config.json, even if a CLIP is there, nor from a cache."""
    original = write_original(tmp_path / "model", family, tower_apart=True)
    elsewhere = tmp_path / "clip-vit-large-patch14-336"
    shutil.move(original.folder / VISION, elsewhere)
    config = json.loads((original.folder / "config.json").read_text())
    for name in ("openai/clip-vit-large-patch14-336", str(elsewhere), "../clip-vit-large-patch14-336"):
        (original.folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": name}))
        with pytest.raises(InputError, match="no weights for its vision tower") as caught:
            read_original(original.folder)
        assert str(original.folder / "vit" / "clip-vit-large-patch14-336") in str(caught.value)
    shutil.copytree(elsewhere, original.folder / "vit" / "clip-vit-large-patch14-336")
    read_original(original.folder)


def test_unknown_towers_and_towers_of_the_wrong_shape_are_refused(tmp_path):
    folder = write_original(tmp_path / "model", "llava-med").folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": "some/eva-clip"}))
    with pytest.raises(InputError, match="medalign knows only clip-vit-large-patch14-336"):
        read_original(folder)
    (folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": "openai/clip-vit-large-patch14-336"}))
    with pytest.raises(InputError, match=r"position_embedding.weight is \[10, 32\], .* \[577, 1024\]"):
        read_original(folder)


def test_unsupported_settings_are_refused_by_name(tmp_path):
    folder = write_original(tmp_path / "model", "llava-med").folder
    config = json.loads((folder / "config.json").read_text())
    wrong = {"mm_projector_type": "linear", "mm_vision_select_feature": "cls_patch", "mm_use_im_start_end": True}
    (folder / "config.json").write_text(json.dumps(config | wrong))
    with pytest.raises(InputError) as caught:
        read_original(folder)
    for text in ("mm_projector_type is 'linear', but only 'mlp2x_gelu'", "'cls_patch'", "mm_use_im_start_end is True"):
        assert text in str(caught.value)


@pytest.mark.parametrize("family", ["llava-med", "huatuo"])
def test_the_image_token_has_a_unique_id(tmp_path, family):
    original = write_original(tmp_path / "model", family)
    checkpoint = read_original(original.folder)
    before = {number for token, number in checkpoint.tokenizer.get_vocab().items() if token != "<image>"}
    assert checkpoint.config.image_token_id not in before
    table = load_original(checkpoint).get_input_embeddings().weight
    assert len(table) == original.shape.rows + (family == "llava-med")  # huatuo has spare rows
    student = load_student(original.folder)
    text = "Is <image> a tag? \ufdd0<image>"
    ids = prompt_ids(student, student.template(student.tokenizer, (), text, 1))
    assert ids.count(student.model.image_token_id) == student.model.patches
    plain = prompt_ids(student, Prompt(text="<image>", answer_prefix="", add_special_tokens=False))
    assert student.tokenizer.decode(plain).strip() == "<image>"


def test_a_new_row_changes_no_other_logit_and_is_never_generated(tmp_path, question):
    original = write_original(tmp_path / "model", "llava-med")
    student = load_student(original.folder)
    logits = model_logits(student, encode_sample(student, question, with_answer=True))
    image, known = logits[:, -1], logits[:, :-1]
    torch.testing.assert_close(image, known.mean(dim=1), atol=1e-4, rtol=0)
    assert (image < known.max(dim=1).values).all()
    assert (logits.softmax(dim=1)[:, -1] <= 1 / known.shape[1]).all()
    assert student.model.llava.generation_config.suppress_tokens == [original.shape.rows]


def test_a_tokenizer_with_more_ids_than_rows_is_refused(tmp_path):
    folder = write_original(tmp_path / "model", "huatuo", rows=300).folder
    with pytest.raises(InputError, match=r"vocab_size in .* is 300"):
        read_original(folder)


def test_a_folder_without_a_tokenizer_is_reported(tmp_path):
    folder = write_original(tmp_path / "model", "llava-med").folder
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="its tokenizer cannot be read"):
        read_original(folder)


def test_precision_is_kept_or_chosen(tmp_path):
    checkpoint = read_original(write_original(tmp_path / "model", "huatuo", dtype=torch.bfloat16).folder)
    kept, wide = load_original(checkpoint), load_original(checkpoint, torch.float32)
    assert {value.dtype for value in kept.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in wide.parameters()} == {torch.float32}
    assert torch.equal(kept.lm_head.weight.float(), wide.lm_head.weight)


PEAK = """
import gc, sys
from pathlib import Path
import torch
from medalign.student.families.original import load_original, read_original

def resident(name):
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1e3

checkpoint = read_original(Path(sys.argv[1]))
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # resets the peak
before = resident("VmRSS")
[value.sum() for value in load_original(checkpoint, getattr(torch, sys.argv[2])).parameters()]
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be reset on this system")
def test_loading_takes_about_one_copy_of_the_weights(tmp_path, forks):
    """Mapped files count: the stored precision takes one copy; a wider precision, one copy and one shard at a time.

    Runs in a separate process, because one that has freed much memory allocates little from the system.
    """
    sizes = {"width": 512, "hidden": 2048, "layers": 8, "heads": 8, "kv_heads": 4}
    folder = write_original(tmp_path / "model", "llava-med", shards=4, dtype=torch.float16, **sizes).folder
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    assert stored > 60
    script = tmp_path / "peak.py"
    script.write_text(PEAK)
    for dtype, limit in (("float16", 1.2 * stored + 5), ("float32", 1.2 * 2 * stored + stored / 4)):
        (done,) = forks.run(script, folder, dtype)
        assert done.code == 0, done.stderr
        peak = float(done.stdout)
        assert 0.9 * stored < peak < limit, (dtype, peak, stored)

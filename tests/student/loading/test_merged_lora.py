"""Merged LoRA computes the same as separate LoRA; precision of the forward pass."""

import json

import pytest
import torch
from comparisons import write_adapter
from medalign.pipeline.evaluation.batches.conditions import condition_warnings
from medalign.student.decoding import Decoding
from medalign.student.decoding.generation import answer_batch
from medalign.student.families.bases import stored_dtype
from medalign.student.folders.student_facts import read_facts
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.inputs.spans import find_images
from medalign.student.loading.student_loading import load_student
from peft import PeftModel
from safetensors.torch import load_file, save_file
from students import mixed_samples


@pytest.fixture(scope="module")
def adapter(student_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter") / "a"
    write_adapter(student_folder, folder, 3)
    return folder


def logits(student, samples):
    """Logits of the token after each prompt, in float32."""
    batch = Collator(pad_token_id=0, pad_left=True)(
        [encode_sample(student, sample, with_answer=False) for sample in samples]
    )
    pixels = batch["pixel_values"].to(next(student.model.stock.model.vision_tower.parameters()).dtype)
    images = find_images(batch["input_ids"], student.model.image_token_id, student.model.patches)
    with torch.inference_mode():
        return student.model.next_logits(
            batch["input_ids"],
            images,
            student.model.image_tokens(pixels),
            attention_mask=batch["attention_mask"],
            position_ids=(batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0),
        ).float()


def test_merged_and_separate_lora_are_equal_in_float32(student_folder, adapter, tmp_path):
    samples, decoding = mixed_samples(tmp_path), Decoding(max_new_tokens=6)
    merged, apart = load_student(adapter), load_student(adapter, keep_lora_apart=True)
    assert (merged.lora, apart.lora) == ("merged", "apart")
    assert not isinstance(merged.model.llava, PeftModel)
    assert isinstance(apart.model.llava, PeftModel)
    assert not [name for name, _ in merged.model.named_parameters() if "lora" in name]
    found, expected = logits(merged, samples), logits(apart, samples)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (logits(load_student(student_folder, template="vicuna_v1"), samples) - expected).abs().max() > 0.1
    assert answer_batch(merged, samples, decoding) == answer_batch(apart, samples, decoding)
    assert merged.lora_kept == pytest.approx(1, abs=1e-6)
    assert apart.lora_kept is None


def test_merged_lora_in_bfloat16_is_within_rounding(adapter, tmp_path):
    """Compared with float32, both merged and separate LoRA have the rounding error of bfloat16."""
    samples = mixed_samples(tmp_path)
    exact = logits(load_student(adapter), samples)
    off = {
        apart: (logits(load_student(adapter, dtype="bfloat16", keep_lora_apart=apart), samples) - exact).norm()
        / exact.norm()
        for apart in (False, True)
    }
    assert off[False] < 1.5 * off[True] + 1e-3
    assert off[False] < 0.1


def test_each_merged_weight_is_rounded_once(student_folder, adapter):
    student = load_student(adapter, dtype="bfloat16")
    lora, config = (
        load_file(adapter / "adapter_model.safetensors"),
        json.loads((adapter / "adapter_config.json").read_text()),
    )
    base = load_file(student_folder / "model.safetensors")
    names = [name for name in lora if name.endswith("layers.2.mlp.up_proj.lora_A.weight")]
    (name,) = names
    A, B = lora[name].double(), lora[name.replace("lora_A", "lora_B")].double()
    (stored,) = [key for key in base if key.endswith("layers.2.mlp.up_proj.weight")]
    W = base[stored].bfloat16().double()
    expected = (W + config["lora_alpha"] / config["r"] * B @ A).float().bfloat16()
    found = student.model.stock.model.language_model.layers[2].mlp.up_proj.weight
    assert (found != expected).float().mean() < 1e-3  # the float32 sum may round a tie differently
    torch.testing.assert_close(found.detach(), expected, rtol=2**-7, atol=0)


@pytest.mark.parametrize(("scale", "kept"), [(1.0, (0.99, 1.01)), (1e-4, (0.0, 0.6))])
def test_updates_lost_to_rounding_are_measured_and_reported(student_folder, adapter, tmp_path, scale, kept):
    """Updates far below half the last digit of a bfloat16 weight vanish; the oracle is torch's own rounding."""
    small = tmp_path / "small"
    small.mkdir()
    for path in adapter.iterdir():
        (small / path.name).write_bytes(path.read_bytes())
    lora = load_file(small / "adapter_model.safetensors")
    scaled = {name: value * scale if "lora_B" in name else value for name, value in lora.items()}
    save_file(scaled, small / "adapter_model.safetensors")
    student, base = load_student(small, dtype="bfloat16"), load_student(student_folder, dtype="bfloat16")
    alone = load_student(small, dtype="bfloat16", keep_lora_apart=True)
    change, whole = 0.0, 0.0
    after, before = (dict(one.model.stock.named_parameters()) for one in (student, base))
    for name, module in alone.model.stock.named_modules():
        if hasattr(module, "lora_A"):
            update = (module.lora_B["default"].weight @ module.lora_A["default"].weight).double() * 2
            gap = after[f"{name}.weight"].double() - before[f"{name}.weight"].double()
            change, whole = change + float((gap * update).sum()), whole + float((update * update).sum())
    assert student.lora_kept == pytest.approx(change / whole, abs=1e-3)
    assert kept[0] <= student.lora_kept <= kept[1]
    lines = condition_warnings({"lora_kept": student.lora_kept}, {"dtype": "bfloat16"})
    assert [f"kept only {student.lora_kept:.0%} of its update" in line for line in lines] == (
        [] if scale == 1 else [True]
    )


def test_default_precision_is_the_adapters_then_the_bases(student_folder, adapter, tmp_path):
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    for path in adapter.iterdir():
        (recorded / path.name).write_bytes(path.read_bytes())
    record = json.loads((recorded / "medalign.json").read_text())
    record["base"] = str(student_folder)
    settings = record["settings"] | {"student": {"dtype": "bfloat16", "quantization": "4bit"}}
    (recorded / "medalign.json").write_text(json.dumps(record | {"settings": settings}))
    half = tmp_path / "half"
    half.mkdir()
    for path in student_folder.iterdir():
        (half / path.name).write_bytes(path.read_bytes())
    config = json.loads((half / "config.json").read_text())
    named = {name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")}
    for part in ("text_config", "vision_config"):
        named[part] = {k: v for k, v in named[part].items() if k not in ("dtype", "torch_dtype")}
    weights = {name: value.half() for name, value in load_file(half / "model.safetensors").items()}
    save_file(weights, half / "model.safetensors", {"format": "pt"})
    for dtype, values in (("float16", named), ("bfloat16", named | {"dtype": "bfloat16"})):
        (half / "config.json").write_text(json.dumps(values))
        assert stored_dtype(half) == load_student(half).dtype == dtype
    for folder, requested, expected in (
        (student_folder, "auto", "float32"),
        (adapter, "auto", "float32"),
        (recorded, "auto", "bfloat16"),
        (recorded, "float32", "float32"),
    ):
        student = load_student(folder, dtype=requested)
        facts = read_facts(folder, None, dtype=requested, template=None, keep_lora_apart=False)
        assert student.dtype == facts.dtype == expected
        for name in ("base_fingerprint", "template_name", "template_origin", "prompt", "lora", "images", "adapter"):
            assert getattr(facts, name) == getattr(student, name), name
        assert facts.layers == len(student.model.stock.model.language_model.layers)


def test_an_adapter_of_a_quantized_base_warns_if_the_base_is_not_quantized():
    run = {"dtype": "bfloat16", "lora": "merged", "adapter_settings": {"quantisation": "4bit"}}
    (line,) = condition_warnings({}, run)
    assert line == (
        "the adapter was trained on a 4-bit base (QLoRA), but here the base is not quantized but bfloat16, and LoRA "
        "is merged"
    )
    assert condition_warnings({}, run | {"adapter_settings": {"layers": [2]}}) == []

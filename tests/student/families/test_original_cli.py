"""Every command with original checkpoints, and transformers Llavas with each kind of language model."""

import json

import pytest
import torch
import yaml
from medalign.cli import app
from medalign.student.adapters.adapter_folder import add_lora
from medalign.student.decoding import Decoding
from medalign.student.decoding.generation import answer_batch
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.loading.student_loading import load_student, open_student
from originals import write_original
from students import byte_tokenizer, sample, tiny_config, write_images
from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig, Qwen2Config, Qwen3Config
from typer.testing import CliRunner

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 260,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def report(*arguments: object, code: int = 0) -> dict:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}"
    return json.loads(result.stdout)


def test_train_generate_evaluate_and_export_accept_an_original_folder(tmp_path):
    """llava-med in .bin shards, W and LoRA trained on phantoms; the exported student answers as the adapter does."""
    base = write_original(tmp_path / "llava-med", "llava-med", kind="bin", shards=2).folder
    report("data", "phantom", "--out", tmp_path / "phantoms", "--images", 6, "--seed", 4)
    manifest = tmp_path / "phantoms" / "manifest.parquet"
    config = {
        "student": {"path": str(base)},
        "data": {"manifest": str(manifest)},
        "alignment": {"layer": 1, "alpha": 0.0, "beta": 0.0},
        "lora": {"r": 2, "lora_alpha": 4},
        "training": {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
                     "learning_rate": 0.05, "dataloader_num_workers": 0, "device": "cpu"},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    adapter, out = tmp_path / "adapter", tmp_path / "exported"
    trained = report("student", "train", tmp_path / "run.yaml", "--out", adapter)
    assert trained["plan"]["template"] == "mistral_instruct"
    evaluate = ("student", "evaluate", "--manifest", manifest, "--limit", 3, "--max-new-tokens", 4, "--device", "cpu")
    report(*evaluate, "--student", adapter, "--out", tmp_path / "scores")
    exported = report("student", "export", adapter, "--out", out, "--evaluation", tmp_path / "scores")
    assert (exported["data_use"], exported["stock"], exported["dtype"]) == ("public", False, "float32")
    assert "3 questions, greedy decoding" in (out / "README.md").read_text()
    image = next((tmp_path / "phantoms").rglob("*.png"))
    ask = ("student", "generate", "--image", image, "--question", "What?", "--max-new-tokens", 6, "--device", "cpu")
    assert report(*ask, "--student", adapter)["answer"] == report(*ask, "--student", out)["answer"]
    converted = report("student", "convert", base, "--out", tmp_path / "converted", "--dtype", "float16")
    assert (converted["family"], converted["dtype"], converted["added_rows"]) == ("LLaVA-Med-1.5", "float16", 1)
    report("student", "generate", "--student", tmp_path / "converted", *ask[2:])


def text_config(kind: str):
    if kind == "llama":
        return tiny_config().text_config
    return {"mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}[kind](**SIZES)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_llava_with_each_language_model_trains_and_answers(tmp_path, kind):
    torch.manual_seed(0)
    base = tiny_config()
    config = LlavaConfig(
        text_config=text_config(kind),
        vision_config=base.vision_config,
        image_token_index=3,
        image_seq_length=9,
    )
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    student = open_student(tmp_path / "base", layers=(2,), rotation="full")
    add_lora(student.model, base=student.base, rank=2, alpha=4, dropout=0.0)
    question = sample("Is <image> it?", "yes", *write_images(tmp_path / "images", [(24, 30)]))
    batch = Collator(pad_token_id=0)([encode_sample(student, question, with_answer=True)])
    output = student.model(**batch, E_v=torch.randn(1, 9, 5), E_a=torch.rand(1, 9))
    (output.loss_lm.sum() + output.loss_vis.sum() + output.loss_att.sum()).backward()
    assert student.model.rotations[2].weight.grad.abs().max() > 0
    lora = [value for name, value in student.model.named_parameters() if "lora_B" in name]
    assert len(lora) == 4 * 7
    assert all(value.grad is not None for value in lora)
    (answer,) = answer_batch(load_student(tmp_path / "base"), [question], Decoding(max_new_tokens=4))
    assert isinstance(answer.text, str)

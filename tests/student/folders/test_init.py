"""`student init` creates a Llava that transformers loads strictly, with the weights of its parts."""

import json

import numpy as np
import pytest
import torch
from medalign.errors import InputError, SettingsError
from medalign.progress import Silent
from medalign.student.folders.init import init_student
from medalign.student.inputs.image_processing import read_student_images
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

WORDS = ("<s>", "</s>", "<unk>", "what", "is", "this", "a", "lung", "?")


def save_llm(folder, *, tied=True, rows=None, dtype=torch.float32, words=WORDS, **special):
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=rows or len(words),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "</s>", **special}
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **special).save_pretrained(folder)
    return folder


def make(llm, out, vision="tiny", **options):
    return init_student(llm, vision, out, **{"image_tokens": 16, "seed": 3, "progress": Silent(), **options})


def load(folder):
    model, loaded = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(loaded.values()), loaded
    return model.eval()


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    return save_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def student(llm, tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "made"
    make(llm, out)
    return out


def test_576_image_tokens_run_forward_and_generate(llm, tmp_path):
    report = make(llm, tmp_path / "out", image_tokens=576)
    model = load(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    image = Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8))
    batch = processor(text="<image> what is this ?", images=image, return_tensors="pt")
    assert (batch["input_ids"] == report.image_token_id).sum() == 576
    with torch.no_grad():
        logits = model(**batch).logits
    assert logits.shape[1] == batch["input_ids"].shape[1]
    assert logits.isfinite().all()
    generated = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert generated.shape[1] > batch["input_ids"].shape[1]


@pytest.mark.parametrize("tied", [True, False])
def test_the_language_model_keeps_its_logits(tmp_path, tied):
    llm = save_llm(tmp_path / "llm", tied=tied)
    make(llm, tmp_path / "out")
    before, after = AutoModelForCausalLM.from_pretrained(llm).eval(), load(tmp_path / "out")
    ids = torch.tensor([[0, 3, 4, 5]])
    with torch.no_grad():
        expected, found = before(input_ids=ids).logits, after(input_ids=ids).logits
    torch.testing.assert_close(found[..., : len(WORDS)], expected)
    same = after.lm_head.weight is after.model.language_model.embed_tokens.weight
    assert same == tied


def test_new_tokens_have_unique_ids_and_mean_rows(llm, student):
    model, tokenizer = load(student), AutoTokenizer.from_pretrained(student)
    record = json.loads((student / "medalign-init.json").read_text())
    assert tokenizer.convert_tokens_to_ids("<image>") == model.config.image_token_index == len(WORDS)
    assert tokenizer.pad_token_id == model.config.pad_token_id == record["pad_token_id"] == len(WORDS) + 1
    assert tokenizer("what <image> lung")["input_ids"] == [3, len(WORDS), 7]
    table = model.get_input_embeddings().weight
    assert len(table) == len(WORDS) + 2
    original = AutoModelForCausalLM.from_pretrained(llm).get_input_embeddings().weight
    torch.testing.assert_close(table[: len(WORDS)], original)
    torch.testing.assert_close(table[len(WORDS)], original.mean(dim=0))
    assert str(llm) not in (student / "config.json").read_text()


def test_an_existing_pad_token_is_kept_and_spare_rows_are_used(tmp_path):
    llm = save_llm(tmp_path / "llm", rows=len(WORDS) + 7, pad_token="</s>")
    report = make(llm, tmp_path / "out")
    assert (report.pad_token_id, report.image_token_id) == (1, len(WORDS))
    assert len(load(tmp_path / "out").get_input_embeddings().weight) == len(WORDS) + 7


def test_an_existing_image_token_is_used(tmp_path):
    words = ("<s>", "</s>", "<unk>", "<image>", *WORDS[3:])
    llm = save_llm(tmp_path / "llm", words=words, rows=len(words))
    assert make(llm, tmp_path / "out").image_token_id == 3
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a <image>")["input_ids"] == [7, 3]


def test_the_seed_determines_the_random_weights(llm, student, tmp_path):
    make(llm, tmp_path / "again")
    make(llm, tmp_path / "other", seed=4)
    weights = [load(folder).state_dict() for folder in (student, tmp_path / "again", tmp_path / "other")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    differing = {name.split(".")[1] for name in weights[0] if not torch.equal(weights[0][name], weights[2][name])}
    assert differing == {"vision_tower", "multi_modal_projector"}


def test_init_does_not_change_the_callers_random_state(llm, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make(llm, tmp_path / "out")
    torch.testing.assert_close(torch.rand(3), expected)


def test_image_tokens_have_the_scale_of_text_embeddings(student):
    model = load(student)
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        tokens = model.model.multi_modal_projector(hidden)
    words = model.get_input_embeddings().weight
    assert tokens.square().mean().sqrt() == pytest.approx(words.square().mean().sqrt().item(), rel=0.2)


def test_the_precision_of_the_language_model_is_kept(tmp_path):
    report = make(save_llm(tmp_path / "llm", dtype=torch.bfloat16), tmp_path / "out")
    assert report.dtype == "bfloat16"
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", dtype="auto")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def save_clip(folder, image_size=28, patch_size=7):
    torch.manual_seed(2)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": patch_size,
    }
    text = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 50,
    }
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text))
    model.save_pretrained(folder / "clip")
    model.vision_model.save_pretrained(folder / "tower")
    return model.vision_model.state_dict()


@pytest.mark.parametrize("kind", ["clip", "tower"])
def test_the_tower_of_a_clip_folder_is_used(llm, tmp_path, kind):
    expected = save_clip(tmp_path)
    report = make(llm, tmp_path / "out", tmp_path / kind)
    found = load(tmp_path / "out").model.vision_tower.state_dict()
    assert report.vision == kind
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_wrong_number_of_image_tokens_is_refused_with_both_numbers(llm, tmp_path):
    save_clip(tmp_path)
    with pytest.raises(SettingsError, match=r"has 16 image tokens, not 576\. Pass --image-tokens 16"):
        make(llm, tmp_path / "out", tmp_path / "clip", image_tokens=576)
    with pytest.raises(SettingsError, match="17 image tokens do not form a square grid"):
        make(llm, tmp_path / "out", image_tokens=17)


def test_transformers_processor_pads_as_medalign_does(student):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 70, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((70, 40)).resize((210, 120), Image.Resampling.BICUBIC)
    model = load(student)
    ours = read_student_images(student, model.config)
    theirs = AutoProcessor.from_pretrained(student).image_processor(image, return_tensors="pt")["pixel_values"]
    assert ours.grid.patches == 16
    torch.testing.assert_close(ours.pixels(image), theirs[0], atol=0.05, rtol=0)


def test_init_rejects_folders_without_a_model(llm, student, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "gguf").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "gguf" / name).write_bytes(b"GGUF")
    save_clip(tmp_path)
    cases = [
        (tmp_path / "none", "tiny", "--llm .*none does not exist"),
        (tmp_path / "empty", "tiny", "is not a language model: it has no config.json"),
        (tmp_path / "gguf", "tiny", "contains 2 GGUF files. Pass one of them as --llm: a.gguf, b.gguf"),
        (tmp_path / "clip", "tiny", "cannot be loaded as a causal language model"),
        (llm, tmp_path / "empty", "is not a vision tower: it has no config.json"),
        (llm, llm, "contains a 'llama' model; --vision takes a CLIP model"),
    ]
    for language, vision, message in cases:
        with pytest.raises(InputError, match=message):
            make(language, tmp_path / "out", vision)
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"has no file c\.gguf"):
        make(tmp_path / "gguf", tmp_path / "out", gguf_file="c.gguf")
    with pytest.raises(InputError, match="already exists"):
        make(llm, student)


def test_boolean_masks_of_older_language_models_are_accepted(tmp_path):
    """GPT-NeoX's published files contain its causal masks, which transformers ignores."""
    config = GPTNeoXConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
    )
    llm = save_llm(tmp_path / "llm")
    GPTNeoXForCausalLM(config).save_pretrained(llm)
    path = llm / "model.safetensors"
    masks = {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool)}
    save_file(load_file(path) | masks, path, metadata={"format": "pt"})
    assert make(llm, tmp_path / "out").image_token_id == len(WORDS)
    quantized = {"gpt_neox.layers.0.attention.dense.weight": torch.ones(16, 16, dtype=torch.int8)}
    save_file(load_file(path) | quantized, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"attention.dense.weight is stored as int8"):
        make(llm, tmp_path / "again")


def test_a_tower_with_missing_weights_is_refused(llm, tmp_path):
    save_clip(tmp_path)
    path = tmp_path / "tower" / "model.safetensors"
    weights = load_file(path)
    del weights[next(name for name in weights if "layers.1" in name)]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="1 weight of the vision tower is missing"):
        make(llm, tmp_path / "out", tmp_path / "tower")

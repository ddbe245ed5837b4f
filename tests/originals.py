"""Tiny random checkpoints in the original LLaVA format: names, files and tokenizers as the published ones have them."""

import io
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

SYSTEM_WORDS = """a chat between a curious user and an artificial intelligence assistant the assistant gives helpful
detailed and polite answers to the user questions A The What is the lung effusion yes no side which image INST"""
VISION = "vit/clip_tiny"
TOWER_NAME = "model.vision_tower.vision_tower."
CHAT_ML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a checkpoint, text and tower."""

    architecture: str
    model_type: str
    width: int = 32
    hidden: int = 48
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    rows: int = 0
    """Rows of the embedding tables."""
    theta: float = 1e6
    eps: float = 1e-5
    biases: bool = False
    """On query, key and value, as in Qwen2."""
    tied: bool = False
    tower_width: int = 32
    tower_hidden: int = 64
    tower_layers: int = 3
    tower_heads: int = 2
    image: int = 24
    patch: int = 8
    tower: str = VISION
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def patches(self) -> int:
        return (self.image // self.patch) ** 2

    @property
    def head(self) -> int:
        return self.width // self.heads


MISTRAL = {"architecture": "LlavaMistralForCausalLM", "model_type": "llava_mistral"}
QWEN2 = {"architecture": "LlavaQwen2ForCausalLM", "model_type": "llava_qwen2", "biases": True, "eps": 1e-6}
LLAMA = {"architecture": "LlavaLlamaForCausalLM", "model_type": "llava", "kv_heads": 4, "theta": 1e4}
FULL_TOWER = {
    "tower_width": 1024,
    "tower_hidden": 4096,
    "tower_layers": 24,
    "tower_heads": 16,
    "image": 336,
    "patch": 14,
    "tower": "openai/clip-vit-large-patch14-336",
}
FULL_SIZE = {
    "llava-med": Shape(**MISTRAL, **FULL_TOWER, width=4096, hidden=14336, layers=32, heads=32, kv_heads=8, rows=32000),
    "huatuo": Shape(
        **QWEN2,
        **FULL_TOWER | {"tower": "./vit/clip_vit_large_patch14_336"},
        width=3584,
        hidden=18944,
        layers=28,
        heads=28,
        kv_heads=4,
        rows=152064,
    ),
    "llava": Shape(**LLAMA | {"kv_heads": 32}, **FULL_TOWER, width=4096, hidden=11008, layers=32, heads=32, rows=32000),
}


def text_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of language model and projector."""
    wide, kv = shape.width, shape.kv_heads * shape.head
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.rows, wide), "model.norm.weight": (wide,)}
    if not shape.tied:
        found["lm_head.weight"] = (shape.rows, wide)
    for layer in range(shape.layers):
        name = f"model.layers.{layer}."
        for part, rows in (("q", wide), ("k", kv), ("v", kv)):
            found[f"{name}self_attn.{part}_proj.weight"] = (rows, wide)
            if shape.biases:
                found[f"{name}self_attn.{part}_proj.bias"] = (rows,)
        found[f"{name}self_attn.o_proj.weight"] = (wide, wide)
        found[f"{name}mlp.gate_proj.weight"] = found[f"{name}mlp.up_proj.weight"] = (shape.hidden, wide)
        found[f"{name}mlp.down_proj.weight"] = (wide, shape.hidden)
        found[f"{name}input_layernorm.weight"] = found[f"{name}post_attention_layernorm.weight"] = (wide,)
    found |= {"model.mm_projector.0.weight": (wide, shape.tower_width), "model.mm_projector.0.bias": (wide,)}
    return found | {"model.mm_projector.2.weight": (wide, wide), "model.mm_projector.2.bias": (wide,)}


def tower_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a CLIP vision tower by itself."""
    wide, name = shape.tower_width, "vision_model."
    found: dict[str, tuple[int, ...]] = {
        f"{name}embeddings.class_embedding": (wide,),
        f"{name}embeddings.patch_embedding.weight": (wide, 3, shape.patch, shape.patch),
        f"{name}embeddings.position_embedding.weight": (shape.patches + 1, wide),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        found |= {f"{name}{norm}.weight": (wide,), f"{name}{norm}.bias": (wide,)}
    for layer in range(shape.tower_layers):
        block = f"{name}encoder.layers.{layer}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= {f"{block}self_attn.{part}.weight": (wide, wide), f"{block}self_attn.{part}.bias": (wide,)}
        for norm in ("layer_norm1", "layer_norm2"):
            found |= {f"{block}{norm}.weight": (wide,), f"{block}{norm}.bias": (wide,)}
        found |= {f"{block}mlp.fc1.weight": (shape.tower_hidden, wide), f"{block}mlp.fc1.bias": (shape.tower_hidden,)}
        found |= {f"{block}mlp.fc2.weight": (wide, shape.tower_hidden), f"{block}mlp.fc2.bias": (wide,)}
    return found


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float32):
    """Values of a size that keeps activations, attention and answers different from token to token."""
    generator = torch.Generator().manual_seed(seed)

    def value(name: str, size: tuple[int, ...]) -> Tensor:
        drawn = torch.randn(size, generator=generator)
        if len(size) == 1:
            return 0.2 * drawn + ("norm" in name and name.endswith("weight"))
        fan_in = drawn[0].numel() if "embed" not in name or "patch" in name else 1
        return drawn * 1.5 / fan_in**0.5

    return {name: value(name, size).to(dtype) for name, size in shapes.items()}


@cache
def sentencepiece_model() -> bytes:
    """A SentencePiece BPE with byte fallback that cuts the prompt where Mistral's does: every word whole but US-ER."""
    words = SYSTEM_WORDS.split()
    lines = (
        [" ".join(words)] * 40 + ["US USA USB USC", "xER yER zER BOTHER"] * 5 + [", . ' : s ? [INST] [/INST] < >"] * 40
    )
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        model_type="bpe",
        vocab_size=560,
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return written.getvalue()


def write_sentencepiece(folder: Path) -> None:
    """LLaVA-Med's tokenizer files: tokenizer.model alone, a begin-of-sequence token in front of every text."""
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "legacy": True,
        "tokenizer_class": "LlamaTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_qwen(folder: Path) -> None:
    """HuatuoGPT-Vision's tokenizer files: byte-level BPE, no begin-of-sequence token, a chat template it never uses."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [f" {word}" for word in SYSTEM_WORDS.split()]
    corpus = ["".join(words), "A\nuser\nassistant user's <| \n>:a"] * 40
    trainer = trainers.BpeTrainer(
        vocab_size=560, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": None,
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "add_prefix_space": False,
        "chat_template": CHAT_ML,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def llava_config(shape: Shape) -> dict[str, Any]:
    """config.json as the published ones, with fields of no meaning for the model too."""
    return {
        "_name_or_path": "/somewhere/else",
        "architectures": [shape.architecture],
        "auto_map": {"AutoModelForCausalLM": "evil.Model"},
        "attention_dropout": 0.0,
        "bos_token_id": 1 if not shape.biases else shape.extra.get("end"),
        "eos_token_id": 2 if not shape.biases else shape.extra.get("end"),
        "freeze_mm_mlp_adapter": False,
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "image_aspect_ratio": "pad",
        "image_grid_pinpoints": None,
        "initializer_range": 0.02,
        "intermediate_size": shape.hidden,
        "max_position_embeddings": 4096,
        "mm_hidden_size": shape.tower_width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": shape.tower,
        "model_type": shape.model_type,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "sliding_window": 131072 if shape.biases else None,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.0",
        "tune_mm_mlp_adapter": False,
        "use_cache": True,
        "use_mm_proj": True,
        "vocab_size": shape.rows,
    } | ({"use_sliding_window": False, "max_window_layers": shape.layers} if shape.biases else {})


def tower_config(shape: Shape) -> dict[str, Any]:
    """config.json of the tower's folder: that of a whole CLIP, as HuatuoGPT-Vision has it."""
    vision = {
        "hidden_size": shape.tower_width,
        "intermediate_size": shape.tower_hidden,
        "num_hidden_layers": shape.tower_layers,
        "num_attention_heads": shape.tower_heads,
        "image_size": shape.image,
        "patch_size": shape.patch,
        "projection_dim": 16,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "model_type": "clip_vision_model",
    }
    return {"model_type": "clip", "vision_config": vision, "text_config": {"hidden_size": 16}}


def save_weights(tensors: dict[str, Tensor], folder: Path, *, kind: str = "safetensors", shards: int = 1) -> None:
    """One file, or several with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    names = list(tensors)
    weight_map = {}
    for shard in range(shards):
        part = {name: tensors[name].contiguous() for name in names[shard::shards]}
        file = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{shard + 1:05}-of-{shards:05}.{suffix}"
        save_file(part, folder / file) if kind == "safetensors" else torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@dataclass(frozen=True, kw_only=True)
class Original:
    """A checkpoint as written, and its tensors by their original names."""

    folder: Path
    shape: Shape
    tensors: dict[str, Tensor]


def write_original(
    folder: Path,
    family: str,
    *,
    kind: str = "safetensors",
    shards: int = 1,
    tower_apart: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **sizes: Any,
) -> Original:
    """Write a tiny LLaVA-Med-1.5 (`llava-med`), HuatuoGPT-Vision (`huatuo`) or LLaVA-1.5 (`llava`) folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if family == "huatuo":
        write_qwen(folder)
        vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json"))
        end = vocabulary.token_to_id("<|endoftext|>")
        shape = Shape(**QWEN2 | {"rows": vocabulary.get_vocab_size() + 6, "extra": {"end": end}} | sizes)
    else:
        write_sentencepiece(folder)
        processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
        shape = Shape(**(MISTRAL if family == "llava-med" else LLAMA) | {"rows": processor.vocab_size()} | sizes)
    (folder / "config.json").write_text(json.dumps(llava_config(shape)))
    (folder / VISION).mkdir(parents=True, exist_ok=True)
    (folder / VISION / "config.json").write_text(json.dumps(tower_config(shape)))
    text = random_tensors(text_shapes(shape), seed, dtype)
    tower = random_tensors(tower_shapes(shape), seed + 1, dtype)
    inside = {TOWER_NAME + name: value for name, value in tower.items()}
    if tower_apart:
        rest = {"text_model.embeddings.token_embedding.weight": torch.ones(3, 2), "logit_scale": torch.tensor(1.0)}
        save_weights(tower | rest, folder / VISION, kind=kind)
        save_weights(text, folder, kind=kind, shards=shards)
    else:
        save_weights(text | inside, folder, kind=kind, shards=shards)
    return Original(folder=folder, shape=shape, tensors=text | inside)

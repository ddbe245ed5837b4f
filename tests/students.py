"""A tiny Llava folder written the way the real ones are, and what it takes to train it."""

from pathlib import Path

import numpy as np
import torch
from medalign.student.adapters.adapter_folder import AdapterRecord, add_lora
from medalign.student.adapters.trainable import LearningRates
from medalign.student.inputs.collation import Sample, SampleImage
from medalign.student.loading.student_loading import open_student
from medalign.student.training.training_options import TrainingOptions
from medalign.teacher_cache.images import image_hash
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

LAYER = 2
OPTIONS = TrainingOptions(
    alpha=1.0,
    beta=0.5,
    learning_rates=LearningRates(language_model=1e-2, projector=1e-2, vision_tower=1e-2, rotation=1e-3),
    weight_decay=0.0,
    max_grad_norm=1.0,
    warmup_ratio=0.0,
    num_train_epochs=1.0,
    max_steps=2,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=1,
    eval_steps=None,
    save_steps=1,
    logging_steps=1,
    patience=None,
    group_by_length=False,
    gradient_checkpointing=None,
    sharding=None,
    report_to=(),
    precision="float32",
    dataloader_num_workers=0,
    seed=0,
    device="cpu",
)

SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, a begin-of-sequence token in front, four special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )


def tiny_config() -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=24,
        patch_size=8,
        projection_dim=32,
    )
    text = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=260,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=3,
        image_seq_length=9,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def write_tiny_student(folder: Path, seed: int = 0) -> None:
    """Random weights large enough that attention and answers differ from image to image."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(tiny_config())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def write_images(folder: Path, sizes: list[tuple[int, int]], seed: int = 0) -> list[Path]:
    """Colorful noise images of the given (width, height)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    paths = []
    for index, (width, height) in enumerate(sizes):
        path = folder / f"{index}.png"
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def sample(question: str, answer: str, *paths: Path, history: tuple[tuple[str, str], ...] = ()) -> Sample:
    images = tuple(SampleImage(path=path, image_hash=image_hash(path.read_bytes())) for path in paths)
    return Sample(question_id=question, question=question, answer=answer, images=images, history=history)


def mixed_samples(folder: Path) -> list[Sample]:
    """Four samples of different lengths: one image, text only, two images, one image with an earlier turn."""
    a, b, c, d = write_images(folder, [(24, 24), (40, 20), (18, 30), (24, 24)])
    return [
        sample("What is it?", "lungs: both", a),
        sample("Say yes.", "yes"),
        sample("Which of the two images is wide?", "the first", b, c),
        sample("And now?", "no", d, history=(("Is it a scan?", "yes"),)),
    ]


def trainable(folder, *, rotation="full", dropout=0.0):
    torch.manual_seed(1)
    student = open_student(folder, layers=[LAYER], rotation=rotation, template="vicuna_v1")
    add_lora(student.model, base=student.base, rank=4, alpha=8, dropout=dropout)
    return student


def adapter_record(student) -> AdapterRecord:
    return AdapterRecord(
        base=str(student.base),
        base_fingerprint=student.base_fingerprint,
        layers=(LAYER,),
        rotation="full",
        template=student.template_name,
        attention_normalisation="sum",
        store=None,
        settings={},
    )

"""The demo's student base: a tiny Llava that can describe phantoms without a shift and answer questions about them.

First its vision tower learns from caption slots and from the contents of cells, then projector and language model learn
from all texts, with the tower frozen. It never sees a phantom with a shift: its language model is good, and its tower
is weak where the look of the images is another one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from ...progress import Progress
from ...student.inputs.image_processing import CLIP_MEAN, CLIP_STD
from ...student.prompts.control_tokens import IMAGE_PLACEHOLDER
from ...student.prompts.templates import plain
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ..data.phantoms.phantom_questions import PhantomQuestion
from .cell_targets import cell_targets
from .corpus import IMAGE_SIZE, Corpus, batches
from .question_packing import Turn, packed_loss
from .slot_training import SlotAccuracy, SlotHeads, slot_accuracy, train_on_slots

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PATCH_SIZE = 12
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2


@dataclass(frozen=True, kw_only=True)
class StudentBase:
    """A pretrained base and the accuracy of its parts."""

    model: LlavaForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast
    processor: CLIPImageProcessor
    heads: SlotHeads
    """The heads that the tower was trained with; not kept."""
    final_loss: float
    """Mean answer NLL over the last 50 steps, in nats per token."""

    def tower_accuracy(self, held_out: Corpus) -> SlotAccuracy:
        return slot_accuracy(self.heads, partial(_encode, self.model), held_out)


def pretrain_student(corpus: Corpus, *, tower_steps: int, steps: int, seed: int, progress: Progress) -> StudentBase:
    """Train the base from scratch; seeded."""
    texts = [text for asked in corpus.questions for turn in asked for text in (turn.question, turn.answer)]
    tokenizer = word_tokenizer([*texts, "Question:\nAnswer:"])
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(_config(tokenizer))
    heads = _train_tower(model, corpus, tower_steps, seed, progress)
    final_loss = _train_language(model, tokenizer, corpus, steps, seed, progress)
    return StudentBase(
        model=model.eval(),
        tokenizer=tokenizer,
        processor=CLIPImageProcessor(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            image_mean=list(CLIP_MEAN),
            image_std=list(CLIP_STD),
        ),
        heads=heads,
        final_loss=final_loss,
    )


def _config(tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=128,
        hidden_act="gelu",
    )
    text = LlamaConfig(
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )


def _train_tower(
    model: LlavaForConditionalGeneration, corpus: Corpus, steps: int, seed: int, progress: Progress
) -> SlotHeads:
    side = IMAGE_SIZE // PATCH_SIZE
    return train_on_slots(
        model.model.vision_tower,
        partial(_encode, model),
        model.config.vision_config.hidden_size,
        corpus,
        steps=steps,
        batch_size=16,
        learning_rate=1.5e-3,
        seed=seed,
        label="student tower",
        progress=progress,
        cells=cell_targets(corpus, PatchGrid(side, side)),
    )


def _encode(model: LlavaForConditionalGeneration, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The class token and the patch tokens of the tower."""
    hidden = model.model.vision_tower(pixels).last_hidden_state
    return hidden[:, 0], hidden[:, 1:]


def _train_language(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    steps: int,
    seed: int,
    progress: Progress,
) -> float:
    """Train projector and language model on features of the frozen tower, with all texts of an image in one row."""
    features = tower_features(model, corpus.pixels)
    turns = [tokenize(tokenizer, asked) for asked in corpus.questions]

    def losses(chosen: Tensor) -> tuple[Tensor, Tensor]:
        return packed_loss(model, features[chosen], [turns[int(index)] for index in chosen])

    return train_language(model, losses, len(turns), steps=steps, seed=seed, progress=progress)


def train_language(
    model: LlavaForConditionalGeneration,
    losses_of: Callable[[Int[Tensor, " chosen"]], tuple[Float[Tensor, ""], Float[Tensor, ""]]],
    count: int,
    *,
    steps: int,
    seed: int,
    progress: Progress,
) -> float:
    """Train all but the tower on batches of `count` images, chosen by number.

    `losses_of` a batch are the answer NLL, in nats per token, and what is added to it.

    Returns:
        Mean NLL over the last 50 steps.
    """
    parameters = [p for name, p in model.named_parameters() if "vision_tower" not in name]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    progress.start("student language model", steps)
    model.train()
    seen: list[float] = []
    for step, chosen in enumerate(batches(count, 12, steps, generator)):
        per_token, added = losses_of(chosen)
        optimizer.zero_grad()
        (per_token + added).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        seen.append(per_token.item())
        progress.advance()
        if step % 100 == 99:
            progress.note(f"student language model: step {step + 1}, loss {np.mean(seen[-50:]):.3f}")
    return float(np.mean(seen[-50:]))


@torch.no_grad()
def tower_features(
    model: LlavaForConditionalGeneration, pixels: Float[Tensor, "phantoms 3 96 96"]
) -> Float[Tensor, "phantoms patches width"]:
    """The inputs of the projector, computed once because the tower is frozen."""
    model.eval()
    tower = model.model.vision_tower
    found = [tower(part, output_hidden_states=True).hidden_states[-1][:, 1:] for part in pixels.split(100)]
    return torch.cat(found)


def tokenize(tokenizer: PreTrainedTokenizerFast, asked: Sequence[PhantomQuestion]) -> list[Turn]:
    """The questions about one phantom, in the `plain` template."""
    turns = []
    for item in asked:
        prompt = plain(tokenizer, (), item.question, 1)
        text = prompt.text.removeprefix(IMAGE_PLACEHOLDER)
        head = tokenizer(text, add_special_tokens=False)["input_ids"]
        tail = tokenizer(prompt.answer_prefix + item.answer, add_special_tokens=False)["input_ids"]
        turns.append(Turn(prompt=head, answer=[*tail, tokenizer.eos_token_id]))
    return turns


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token per word, punctuation mark and line break; `<s>` at the start of every text."""
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n|[.,:?]"), behavior="isolated"),
            pre_tokenizers.Split(Regex(" +"), behavior="removed"),
        ]
    )
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    vocabulary = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # words with spaces, none before punctuation
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        clean_up_tokenization_spaces=False,
    )

"""Pack many questions about one image into one row: image tokens are computed once, and questions are independent.

B images, L row length. A row is `<s>`, the image tokens, then the turns; every turn attends to the image and to itself,
and its positions start where those of a single question would.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import LlavaConfig, LlavaForConditionalGeneration

from ...student.inputs.spans import IGNORED_LABEL

PREFIX_TURN, PADDING_TURN = -1, -2


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Tokens of one question and of its answer with the end-of-sequence token."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRows:
    """Questions and answers about B images in rows of length L."""

    ids: Int[Tensor, "batch length"]
    """The image token at the places of the image."""
    labels: Int[Tensor, "batch length"]
    """IGNORED_LABEL outside of answers."""
    turn: Int[Tensor, "batch length"]
    """Number of each token's turn, PREFIX_TURN or PADDING_TURN."""
    positions: Int[Tensor, "batch length"]
    answer_lengths: Int[Tensor, " answers"]
    """Tokens of each answer, in the order of rows and turns."""

    def visible(self) -> Bool[Tensor, "batch 1 length length"]:
        """Which tokens a token attends to: those before it, of the image and of its own turn."""
        length = self.ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        shared = (self.turn[:, :, None] == self.turn[:, None, :]) | (self.turn[:, None, :] == PREFIX_TURN)
        return (causal & shared)[:, None]


def packed_loss(
    model: LlavaForConditionalGeneration,
    features: Float[Tensor, "batch patches width"],
    turns: Sequence[Sequence[Turn]],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Losses of the answers, as in `answer_losses`; `features` are the inputs of the projector."""
    patches = features.shape[1]
    rows = pack(turns, patches, model.config)
    embedded = model.get_input_embeddings()(rows.ids)
    image = model.model.multi_modal_projector(features)
    embedded = torch.cat([embedded[:, :1], image, embedded[:, 1 + patches :]], dim=1)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=rows.visible(),
        position_ids=rows.positions,
        use_cache=False,
    ).last_hidden_state
    return answer_losses(model, hidden, rows)


def answer_losses(
    model: LlavaForConditionalGeneration, hidden: Float[Tensor, "batch length width"], rows: PackedRows
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean negative log likelihood in nats, over all answer tokens, and over answers of the mean over their tokens.

    The second mean gives a yes or no the weight of a caption.
    """
    answered = rows.labels != IGNORED_LABEL
    before = answered.roll(-1, dims=1)  # the position that predicts each answer token
    losses = functional.cross_entropy(model.lm_head(hidden[before]), rows.labels[answered], reduction="none")
    lengths = rows.answer_lengths
    shares = torch.repeat_interleave(1.0 / lengths, lengths)
    return losses.mean(), (losses * shares).sum() / len(lengths)


def pack(turns: Sequence[Sequence[Turn]], patches: int, config: LlavaConfig) -> PackedRows:
    """Lay out the turns about each image behind its `patches` image tokens."""
    prefix = 1 + patches
    lengths = [prefix + sum(len(turn.prompt) + len(turn.answer) for turn in row) for row in turns]
    shape = (len(turns), max(lengths))
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels, numbers = torch.full(shape, IGNORED_LABEL), torch.full(shape, PADDING_TURN)
    ids[:, 0], ids[:, 1:prefix] = config.text_config.bos_token_id, config.image_token_id
    numbers[:, :prefix], positions[:, :prefix] = PREFIX_TURN, torch.arange(prefix)
    for row, asked in enumerate(turns):
        start = prefix
        for number, turn in enumerate(asked):
            middle = start + len(turn.prompt)
            end = middle + len(turn.answer)
            ids[row, start:end] = torch.tensor(turn.prompt + turn.answer)
            labels[row, middle:end] = torch.tensor(turn.answer)
            numbers[row, start:end] = number
            positions[row, start:end] = torch.arange(prefix, prefix + end - start)
            start = end
    return PackedRows(
        ids=ids,
        labels=labels,
        turn=numbers,
        positions=positions,
        answer_lengths=torch.tensor([len(item.answer) for row in turns for item in row]),
    )

"""Pack many questions about one image into one row: image tokens are computed once, and questions are independent.

B images, L row length. A row is `<s>`, the image tokens, then the turns; every turn attends to the image and to itself,
and its positions start where those of a single question would.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from ...student.inputs.spans import IGNORED_LABEL

PREFIX_TURN, PADDING_TURN = -1, -2


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Tokens of one question and of its answer with the end-of-sequence token."""

    prompt: list[int]
    answer: list[int]


def packed_loss(
    model: LlavaForConditionalGeneration,
    features: Float[Tensor, "batch patches width"],
    turns: Sequence[Sequence[Turn]],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean negative log likelihood in nats, over all answer tokens, and over answers of the mean over their tokens.

    `features` are the inputs of the projector. The second mean gives a yes or no the weight of a caption.
    """
    patches = features.shape[1]
    ids, labels, turn, positions = _pack(turns, patches, model.config.text_config.bos_token_id)
    embedded = model.get_input_embeddings()(ids)
    image = model.model.multi_modal_projector(features)
    embedded = torch.cat([embedded[:, :1], image, embedded[:, 1 + patches :]], dim=1)
    length = ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = (turn[:, :, None] == turn[:, None, :]) | (turn[:, None, :] == PREFIX_TURN)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=(causal & visible)[:, None],
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    answered = labels != IGNORED_LABEL
    before = answered.roll(-1, dims=1)  # the position that predicts each answer token
    losses = functional.cross_entropy(model.lm_head(hidden[before]), labels[answered], reduction="none")
    lengths = torch.tensor([len(item.answer) for row in turns for item in row])
    shares = torch.repeat_interleave(1.0 / lengths, lengths)  # answers lie in the order of rows and turns
    return losses.mean(), (losses * shares).sum() / len(lengths)


def _pack(turns: Sequence[Sequence[Turn]], patches: int, bos: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(token ids, labels, turn numbers, positions), [B, L] each."""
    prefix = 1 + patches
    lengths = [prefix + sum(len(turn.prompt) + len(turn.answer) for turn in row) for row in turns]
    shape = (len(turns), max(lengths))
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels, numbers = torch.full(shape, IGNORED_LABEL), torch.full(shape, PADDING_TURN)
    ids[:, 0], numbers[:, :prefix], positions[:, :prefix] = bos, PREFIX_TURN, torch.arange(prefix)
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
    return ids, labels, numbers, positions

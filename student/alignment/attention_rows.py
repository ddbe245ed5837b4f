"""Attention rows of one decoder layer that L_att needs, computed in addition to fused attention.

K images, N patches, H query heads, G query heads per key head, R text rows, L keys.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..inputs.spans import ImageSpans, TextRows
from ..precision import as_stored

ROWS_AT_ONCE = 512
"""Number of text rows whose scores over all keys are in memory at once. For longer texts, such as prompts with
many earlier turns, each part is recomputed in the backward pass instead of being kept."""


def text_to_image_attention(
    query: Float[Tensor, "batch heads length dim"],
    key: Float[Tensor, "batch key_heads keys dim"],
    attention_mask: Bool[Tensor, "#batch 1 rows_of_mask keys_of_mask"] | None,
    scaling: float,
    images: ImageSpans,
    rows: TextRows,
) -> Float[Tensor, "images patches"]:
    """Attention from text tokens to their image's tokens, mean over heads and rows (section 'Attention-aware').

    The softmax is over all keys that a row can attend to, as in the layer itself; rows are padded to the longest
    text, and padding is excluded from the mean. `attention_mask` is the layer's mask, True where a row
    attends to a key, or `None` for plain causal attention.
    """
    index_KR, valid_KR = rows.index, rows.valid
    parts = list(zip(index_KR.split(ROWS_AT_ONCE, dim=1), valid_KR.split(ROWS_AT_ONCE, dim=1), strict=True))
    total_KN = query.new_zeros(images.positions.shape, dtype=torch.float32)
    for index, valid in parts:
        arguments = (query, key, attention_mask, scaling, images, index, valid)
        if len(parts) > 1 and torch.is_grad_enabled():
            summed_KN = checkpoint(_summed_rows, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            summed_KN = _summed_rows(*arguments)
        total_KN = total_KN + summed_KN
    return total_KN / valid_KR.sum(dim=1, keepdim=True)


def _summed_rows(
    query: Float[Tensor, "batch heads length dim"],
    key: Float[Tensor, "batch key_heads keys dim"],
    attention_mask: Bool[Tensor, "#batch 1 rows_of_mask keys_of_mask"] | None,
    scaling: float,
    images: ImageSpans,
    index_KR: Int[Tensor, "images rows"],
    valid_KR: Bool[Tensor, "images rows"],
) -> Float[Tensor, "images patches"]:
    """Attention of some rows to their image's tokens, mean over heads, sum over valid rows."""
    sample_K = images.sample
    rows_KHRd = query[sample_K[:, None], :, index_KR].transpose(1, 2)
    grouped = rows_KHRd.reshape(len(sample_K), key.shape[1], -1, key.shape[3])  # [K, key_heads, G*R, dim]
    # In float32: a product in bfloat16 has 8 bits of precision, but fused attention keeps 24 bits of the same scores.
    # In place where possible, because these are the largest tensors of the losses.
    with as_stored(query.device):
        scores = (grouped.float() @ key[sample_K].float().transpose(2, 3)).mul_(scaling)
    scores_KHRL = scores.view(sample_K.shape[0], query.shape[1], -1, key.shape[2])
    scores_KHRL = _mask_scores(scores_KHRL, attention_mask, sample_K, index_KR, batch=query.shape[0])
    log_total_KHR1 = scores_KHRL.logsumexp(dim=-1, keepdim=True)
    columns = images.positions[:, None, None, :].expand(-1, *scores_KHRL.shape[1:3], -1)
    image_KHRN = scores_KHRL.gather(3, columns).sub_(log_total_KHR1).exp_()
    per_row_KRN = image_KHRN.mean(dim=1) * valid_KR[..., None]
    return per_row_KRN.sum(dim=1)


def _mask_scores(
    scores_KHRL: Float[Tensor, "images heads rows keys"],
    attention_mask: Bool[Tensor, "#batch 1 rows_of_mask keys_of_mask"] | None,
    sample_K: Int[Tensor, " images"],
    index_KR: Int[Tensor, "images rows"],
    batch: int,
) -> Float[Tensor, "images heads rows keys"]:
    if attention_mask is None:
        keys = torch.arange(scores_KHRL.shape[3], device=scores_KHRL.device)
        allowed_KRL = keys <= index_KR[..., None]
    else:
        mask_KRL = attention_mask[:, 0].expand(batch, -1, -1)[sample_K[:, None], index_KR]
        allowed_KRL = mask_KRL[..., : scores_KHRL.shape[3]]
    return scores_KHRL.masked_fill(~allowed_KRL[:, None], float("-inf"))

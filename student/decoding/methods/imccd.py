"""IMCCD: subtracts the student's logits without the image values that the text attends to most.

    scores = (1 + alpha) l(y | v, x, y_<t) - alpha l~(y | v, x, y_<t),  where p(y | v) >= beta max p(y | v)
    l~: every layer's head outputs  sum_j A_ij V_j  with V_j = mu(V) for text tokens i and image tokens j with
        s_ij > mean(s), s the layer's scores before the softmax, mean over heads and all such pairs of the pass
    both: s_ij <- (1 - gamma) s_ij + gamma s'_ij  in the first layers, s' with an image's tokens at one position

Li et al. 2025, Mitigating Hallucination for Large Vision Language Model by Inter-Modality Correlation Calibration
Decoding (arXiv 2501.01926 v1): the negative is its CMVED, the calibrated scores its CDAR. Constants and unspecified
details follow the authors' code at commit 0ea1163 of github.com/lijm48/IMCCD, not its later version (9db52a0, CMAC:
docs/decoding.md): mu(V) is one number per head over the image's values, six layers are calibrated, and gamma is 0.2 as
in their script (their sampling loop reads another argument instead, and so calibrates the positive branch fully and
the negative one not at all; here both are calibrated alike).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ...alignment.attention_taps import SeenAttention, tapped
from ..core.batch_run import Run
from ..core.branch import Branch
from ..core.hooks import HeadOutputs, decoder_layers, image_positions
from ..core.method import Method
from ..core.scorer import Branches, contrast, only_plausible
from ..core.search import search
from ..core.shared_settings import Beta, SearchSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class ImccdSettings(SearchSettings):
    alpha: Annotated[float, Field(ge=0, description="Weight of the contrast; 1 in the authors' captions.")] = 3.0
    beta: Beta = 0.2
    gamma: Annotated[
        float, Field(ge=0, le=1, description="Weight of the calibrated scores; 0 disables calibration.")
    ] = 0.2
    calibrated_layers: Annotated[int, Field(ge=0, description="Number of first layers to calibrate.")] = 6


def answer(run: Run, settings: ImccdSettings) -> Tensor:
    def combine(number: int, logits: Sequence[Tensor]) -> Tensor:
        seen, distorted = logits
        return only_plausible(contrast(seen, distorted, settings.alpha), seen, settings.beta)

    branches = [run.branch(hooks=[CrossModal(settings, distorted=distorted)]) for distorted in (False, True)]
    return search(run, Branches(branches, combine), settings)


class CrossModal:
    """Hook that calibrates the attention of text tokens to images, and optionally distorts the attended values.

    R rows, H heads, G key heads, Q queries from the first that has an image before it, K cached positions.
    """

    def __init__(self, settings: ImccdSettings, *, distorted: bool) -> None:
        self._settings = settings
        self._distorted = distorted
        self._corrections: dict[int, Float[Tensor, "rows heads queries size"]] = {}

    @contextmanager
    def attached(self, branch: Branch) -> Iterator[None]:
        layers = decoder_layers(branch)
        calibrated = self._settings.calibrated_layers if self._settings.gamma > 0 else 0
        seen = range(len(layers) if self._distorted else min(calibrated, len(layers)))
        is_image_RK, shift_RK = image_positions(branch), collapsed(branch)
        reading = branch.attention_mask.shape == branch.prompt.attention_mask.shape
        first = int(branch.prompt.images.positions[:, -1].min()) + 1 if reading else 0
        frequencies = branch.model.stock.model.language_model.rotary_emb.inv_freq

        def see(layer: int, attention: SeenAttention) -> Tensor | None:
            scores_RHQK = scores_from(attention, attention.query, attention.key, first)
            pairs_RHQK = text_to_image(attention, is_image_RK, first)
            bias_RHQK = None
            if layer < calibrated:
                query = turned(attention.query, shift_RK[:, -attention.query.shape[2] :], frequencies)
                key = turned(attention.key, shift_RK, frequencies)
                bias_RHQK = (
                    self._settings.gamma * (scores_from(attention, query, key, first) - scores_RHQK) * pairs_RHQK
                )
                scores_RHQK = scores_RHQK + bias_RHQK
            if self._distorted:
                self._corrections[layer] = correction(attention, scores_RHQK, pairs_RHQK, is_image_RK, first)
            return None if bias_RHQK is None else functional.pad(bias_RHQK, (0, 0, first, 0))

        with ExitStack() as stack:
            stack.enter_context(tapped([layers[layer].self_attn for layer in seen], [partial(see, n) for n in seen]))
            if self._distorted:
                stack.enter_context(HeadOutputs(seen, self._correct).attached(branch))
            yield

    def _correct(self, layer: int, heads: Float[Tensor, "rows queries heads size"]) -> Tensor:
        correction_RQHd = self._corrections.pop(layer).transpose(1, 2)
        return heads + functional.pad(correction_RQHd, (0, 0, 0, 0, heads.shape[1] - correction_RQHd.shape[1], 0))


def collapsed(branch: Branch) -> Int[Tensor, "rows keys"]:
    """Shift of each cached token's position if all tokens of an image get the position of its first token."""
    images = branch.prompt.images
    rest_BL = torch.zeros_like(branch.prompt.attention_mask)
    rest_BL[images.sample[:, None], images.positions[:, 1:]] = 1
    rest_RL = rest_BL[branch.owner]
    return -functional.pad(rest_RL, (0, branch.attention_mask.shape[1] - rest_RL.shape[1])).cumsum(dim=1)


def turned(
    heads: Float[Tensor, "rows heads tokens size"], shift: Int[Tensor, "rows tokens"], frequencies: Tensor
) -> Float[Tensor, "rows heads tokens size"]:
    """Shift queries or keys, after rotary embedding, by `shift` positions."""
    angle = (shift[:, None, :, None] * frequencies).repeat(1, 1, 1, 2)
    first, second = heads.chunk(2, dim=-1)
    return heads * angle.cos().to(heads) + torch.cat([-second, first], dim=-1) * angle.sin().to(heads)


def scores_from(
    seen: SeenAttention, query: Tensor, key: Tensor, first: int
) -> Float[Tensor, "rows heads queries keys"]:
    """Scores of the queries from `first` on, before mask and softmax, in float32."""
    grouped_RGHQd = query[:, :, first:].unflatten(1, (key.shape[1], -1))
    scores: Tensor = (grouped_RGHQd @ key[:, :, None].transpose(3, 4)).float().flatten(1, 2) * seen.scaling
    return scores


def text_to_image(
    seen: SeenAttention, is_image: Bool[Tensor, "rows keys"], first: int
) -> Bool[Tensor, "rows 1 queries keys"]:
    """Mask of pairs of a text query, from `first` on, and an image key before it."""
    queries, keys = seen.query.shape[2], seen.key.shape[2]
    place = torch.arange(keys, device=is_image.device)
    before_QK = place < place[-queries:, None][first:]
    text_RQ = ~is_image[:, -queries:][:, first:]
    return (text_RQ[:, :, None] & is_image[:, None] & before_QK)[:, None]


def correction(
    seen: SeenAttention,
    scores: Float[Tensor, "rows heads queries keys"],
    pairs: Bool[Tensor, "rows 1 queries keys"],
    is_image: Bool[Tensor, "rows keys"],
    first: int,
) -> Float[Tensor, "rows heads queries size"]:
    """Compute the change of head outputs if the most attended image values are replaced by their mean."""
    counted = pairs.expand_as(scores)
    mean_R = (scores * counted).sum(dim=(1, 2, 3)) / counted.sum(dim=(1, 2, 3)).clamp(min=1)
    weights = hidden_from(seen, scores, first).softmax(dim=-1) * (counted & (scores > mean_R[:, None, None, None]))
    grouped_RGHQK = weights.to(seen.value.dtype).unflatten(1, (seen.value.shape[1], -1))
    images_RGK = seen.value.mean(dim=-1) * is_image[:, None]
    mean_RG = images_RGK.sum(dim=-1) / is_image.sum(dim=1, keepdim=True)
    replaced = grouped_RGHQK.sum(dim=-1, keepdim=True) * mean_RG[:, :, None, None, None]
    change: Tensor = replaced - grouped_RGHQK @ seen.value[:, :, None]
    return change.flatten(1, 2)


def hidden_from(seen: SeenAttention, scores: Tensor, first: int) -> Float[Tensor, "rows heads queries keys"]:
    """Apply the layer's mask to scores; masked scores are finite, because a padding query attends to nothing."""
    queries, keys = seen.query.shape[2], seen.key.shape[2]
    if seen.mask is None:
        allowed = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril(keys - queries)[first:]
    elif seen.mask.dtype == torch.bool:
        allowed = seen.mask[:, :, first:, :keys]
    else:
        return scores + seen.mask[:, :, first:, :keys].float()
    return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)


METHOD = Method(
    name="imccd",
    formula="(1+alpha) l(image) - alpha l(values of the image columns most attended to replaced by their mean)",
    paper="Li et al. 2025, Inter-Modality Correlation Calibration Decoding",
    settings=ImccdSettings,
    answer=answer,
    needs_image=True,
)

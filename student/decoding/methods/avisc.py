"""AVISC: subtracts the student's logits for an image with only its blind tokens.

    scores = (1 + alpha) l(y | v, x, y_<t) - alpha l(y | v_b, x, y_<t),  where p(y | v) >= beta max p(y | v)
    v_b = v with every image token zeroed except the blind ones:  A_i >= mean(A) + lambda sigma(A)
    A = attention of the prompt's last token to the image tokens, mean over heads and over the image-centric layers:
        the layers with most attention to the image, which together have a share gamma of all layers' attention to it

Woo et al. 2024, Don't Miss the Forest for the Trees: Attentional Vision Calibration for Large Vision Language Models,
Eq. 2 to 6. Blind tokens are determined once, at prefill, for each sample separately, over all of its images; sigma is
computed for each sample (with n - 1), as in the authors' code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from ..core.batch_run import Run
from ..core.branch import Branch
from ..core.hooks import AttentionRows, decoder_layers
from ..core.method import Method
from ..core.scorer import Branches, contrast, only_plausible
from ..core.search import search
from ..core.shared_settings import Beta, SearchSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class AviscSettings(SearchSettings):
    alpha: Annotated[float, Field(ge=0, description="Weight of the contrast.")] = 1.0
    beta: Beta = 0.1
    layer_gamma: Annotated[
        float,
        Field(gt=0, le=1, description="Share of all layers' attention to the image that the selected layers have."),
    ] = 0.5
    lamb: Annotated[
        float,
        Field(ge=0, description="lambda: number of standard deviations above the mean at which a token is blind."),
    ] = 1.0


def answer(run: Run, settings: AviscSettings) -> Tensor:
    assert run.prompt.image_tokens is not None
    seen = run.branch()
    blind_KN = blind_tokens(image_attention(seen), run.prompt.images.sample, settings)
    negative = run.prompt.with_image_tokens(run.prompt.image_tokens * blind_KN[..., None])

    def combine(number: int, logits: Sequence[Tensor]) -> Tensor:
        positive, unseen = logits
        return only_plausible(contrast(positive, unseen, settings.alpha), positive, settings.beta)

    return search(run, Branches([seen, run.branch(negative)], combine), settings)


def image_attention(branch: Branch) -> Float[Tensor, "layers images patches"]:
    """Attention of each prompt's last token to its image tokens, mean over heads; runs the branch's prefill."""
    rows = AttentionRows(range(len(decoder_layers(branch))), lambda seen: seen.weights().mean(dim=1))
    branch.hooks = (rows,)
    _ = branch.logits  # runs the prefill
    branch.hooks = ()
    images = branch.prompt.images
    return torch.stack([rows.rows[layer][images.sample[:, None], images.positions] for layer in rows.layers])


def blind_tokens(
    attention: Float[Tensor, "layers images patches"], sample: Tensor, settings: AviscSettings
) -> Bool[Tensor, "images patches"]:
    """Find the blind tokens of each image, with statistics over all images of its sample."""
    blind_KN = torch.zeros(attention.shape[1:], dtype=torch.bool, device=attention.device)
    for number in sample.unique():
        own_LKN = attention[:, sample == number]
        row_KN = own_LKN[image_centric_layers(own_LKN.sum(dim=(1, 2)), settings.layer_gamma)].mean(dim=0)
        blind_KN[sample == number] = row_KN >= row_KN.mean() + settings.lamb * row_KN.std()
    return blind_KN


def image_centric_layers(attention: Float[Tensor, " layers"], share: float) -> Tensor:
    """Find the smallest set of layers with `share` of the attention."""
    shares, order = (attention / attention.sum()).sort(descending=True)
    return order[: int((shares.cumsum(dim=0) < share).sum()) + 1]


METHOD = Method(
    name="avisc",
    formula="(1+alpha) l(image) - alpha l(its blind tokens alone, the others zeroed), where p >= beta max p",
    paper="Woo et al. 2024, Attentional Vision Calibration (AVISC)",
    settings=AviscSettings,
    answer=answer,
    needs_image=True,
)

"""VHR, vision-aware head reinforcement: amplifies heads whose output depends on the image.

    A_li <- alpha A_li  for the heads i of layer l with VHD_li > median(VHD_l)
    VHD_li = |A_li(y | v, x) - A_li(y | x)|, output of head i at the prompt's last token, with and without the image
    VHD_li = 0 where both VHD_li and |A_li(y | x)|^2 are above mean + sigma of their layer's heads

He et al. 2025, Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence (ACL), Eq. 4, 6, 7 and
Algorithm 1. Heads are chosen once, at prefill, layer by layer in one pass: the inputs of a layer, with and without the
image, come from the reinforced heads of earlier layers. Heads are reinforced at every position and in every later step,
so that the KV cache is consistent. Sigma is computed with n - 1, and the median is the lower one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ....errors import SettingsError
from ..core.batch_run import Run
from ..core.hooks import HeadOutputs, decoder_layers
from ..core.method import Method
from ..core.scorer import Branches
from ..core.search import search
from ..core.shared_settings import SearchSettings, repeated_layers


@dataclass(frozen=True, kw_only=True, slots=True)
class VhrSettings(SearchSettings):
    alpha: Annotated[float, Field(gt=0, description="Factor of the chosen heads' outputs; 1 disables it.")] = 2.0
    layers: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None,
        Field(
            description="Decoder layers to reinforce, from 0; default: the second and the last 14 of 32, in proportion "
            "for other numbers of layers."
        ),
    ] = None

    def problems(self) -> list[str]:
        return [*SearchSettings.problems(self), *repeated_layers(self.layers)]


def answer(run: Run, settings: VhrSettings) -> Tensor:
    branch = run.branch(run.prompt.beside(run.prompt.without_images()))
    branch.owner = torch.arange(run.batch, device=run.device).repeat(2)
    factors: dict[int, Float[Tensor, "batch heads"]] = {}

    def reinforce(layer: int, heads: Float[Tensor, "rows queries heads size"]) -> Tensor:
        if layer not in factors:  # during prefill
            seen, unseen = heads[:, -1].float().chunk(2)
            factors[layer] = reinforcement(seen, unseen, settings.alpha).to(heads.dtype)
        return heads * factors[layer][branch.owner][:, None, :, None]

    branch.hooks = (HeadOutputs(chosen_layers(len(decoder_layers(branch)), settings.layers), reinforce),)
    branch.select(torch.arange(run.batch, device=run.device))  # the prompts without images are no longer needed
    return search(run, Branches([branch]), settings)


def chosen_layers(layers: int, requested: Sequence[int] | None) -> Sequence[int]:
    """Return the requested layers, or by default the second and the last 14 of each 32.

    Raises:
        SettingsError: the student does not have one of the layers.
    """
    if requested is None:
        return sorted({1, *range(layers - max(1, layers * 14 // 32), layers)})
    if not requested or max(requested) >= layers:
        raise SettingsError(
            f"decode.layers is {list(requested)}, but this student has {layers} layers. Choose from 0 to {layers - 1}"
        )
    return tuple(requested)


def reinforcement(
    seen: Float[Tensor, "batch heads size"], unseen: Float[Tensor, "batch heads size"], alpha: float
) -> Float[Tensor, "batch heads"]:
    """alpha for the heads that depend on the image, 1 for the others."""
    divergence, strength = (seen - unseen).norm(dim=-1), unseen.square().sum(dim=-1)
    surges = _stands_out(divergence) & _stands_out(strength)
    divergence = divergence.masked_fill(surges, 0)
    chosen = divergence > divergence.median(dim=1, keepdim=True).values
    return torch.where(chosen, alpha, 1.0)


def _stands_out(values: Float[Tensor, "batch heads"]) -> Tensor:
    return values > values.mean(dim=1, keepdim=True) + values.std(dim=1, keepdim=True)


METHOD = Method(
    name="vhr",
    formula="outputs of the heads that differ most with and without the image, times alpha",
    paper="He et al. 2025, Vision-aware Head Reinforcement (ACL)",
    settings=VhrSettings,
    answer=answer,
    needs_image=True,
)

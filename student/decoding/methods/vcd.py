"""VCD, visual contrastive decoding: subtracts the student's logits for a noised image.

    scores = (1 + alpha) l(y | v, x, y_<t) - alpha l(y | v', x, y_<t),  where p(y | v) >= beta max p(y | v)
    v' = sqrt(a_T) v + sqrt(1 - a_T) noise,  a_T the product of 1 - b_t over T steps, b_t a sigmoid ramp

Leng et al. 2024, Mitigating Object Hallucinations in Large Vision-Language Models through Visual Contrastive Decoding
(CVPR), Eq. 1, 3 and 4. The negative branch has separate image tokens, encoded from the noised pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ...transfer import to_device
from ..core.batch_run import Run
from ..core.method import Method
from ..core.scorer import Branches, contrast, only_plausible
from ..core.search import search
from ..core.shared_settings import Beta, SearchSettings

STEPS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class VcdSettings(SearchSettings):
    alpha: Annotated[float, Field(ge=0, description="Weight of the contrast.")] = 1.0
    beta: Beta = 0.1
    noise_step: Annotated[
        int, Field(ge=0, lt=STEPS, description="Number of diffusion steps of noise, out of 1,000.")
    ] = 500


def answer(run: Run, settings: VcdSettings) -> Tensor:
    assert run.pixel_values is not None
    noised = noised_pixels(run, settings.noise_step, settings.seed)
    negative = run.prompt.with_image_tokens(run.image_tokens(noised))

    def combine(number: int, logits: Sequence[Tensor]) -> Tensor:
        seen, unseen = logits
        return only_plausible(contrast(seen, unseen, settings.alpha), seen, settings.beta)

    return search(run, Branches([run.branch(), run.branch(negative)], combine), settings)


def noised_pixels(run: Run, step: int, seed: int) -> Float[Tensor, "images 3 size size"]:
    """Pixels after `step` steps of diffusion; the noise of a question does not depend on its batch."""
    assert run.pixel_values is not None
    kept = signal_share(step)
    generators = run.generators(seed, "pixels")
    noise = [
        torch.randn(run.pixel_values.shape[1:], generator=generators[s]) for s in run.prompt.images.sample.tolist()
    ]
    added = to_device(torch.stack(noise).to(run.pixel_values.dtype), run.device)
    return math.sqrt(kept) * run.pixel_values + math.sqrt(1 - kept) * added


def signal_share(step: int) -> float:
    """Product of 1 - b_t up to and including this step: the remaining share of the image's variance."""
    rates = torch.linspace(-6, 6, STEPS, dtype=torch.float64).sigmoid() * (0.5e-2 - 1e-5) + 1e-5
    return float((1 - rates[: step + 1]).prod())


METHOD = Method(
    name="vcd",
    formula="(1+alpha) l(image) - alpha l(noised image), where p >= beta max p",
    paper="Leng et al. 2024, Visual Contrastive Decoding (CVPR)",
    settings=VcdSettings,
    answer=answer,
    needs_image=True,
    needs_pixels=True,
)

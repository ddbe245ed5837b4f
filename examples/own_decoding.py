"""A custom decoding method: contrast against the mirrored image (docs/decoding.md).

An installed package offers it to `medalign student evaluate --decode mirror` with, in its pyproject.toml,

    [project.entry-points."medalign.decodings"]
    mirror = "own_package.own_decoding:METHOD"
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from medalign.student.decoding import Method
from medalign.student.decoding.core.batch_run import Run
from medalign.student.decoding.core.scorer import Branches, contrast, only_plausible
from medalign.student.decoding.core.search import search
from medalign.student.decoding.core.shared_settings import Beta, SearchSettings
from pydantic import Field
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorSettings(SearchSettings):
    alpha: Annotated[float, Field(ge=0, description="Weight of the contrast.")] = 1.0
    beta: Beta = 0.1


def answer(run: Run, settings: MirrorSettings) -> Tensor:
    assert run.pixel_values is not None  # as needs_image and needs_pixels say
    mirrored = run.prompt.with_image_tokens(run.image_tokens(run.pixel_values.flip(-1)))

    def combine(number: int, logits: Sequence[Tensor]) -> Tensor:
        seen, mirror = logits
        return only_plausible(contrast(seen, mirror, settings.alpha), seen, settings.beta)

    return search(run, Branches([run.branch(), run.branch(mirrored)], combine), settings)


METHOD = Method(
    name="mirror",
    formula="(1+alpha) l(image) - alpha l(mirrored image), where p >= beta max p",
    paper="-",
    settings=MirrorSettings,
    answer=answer,
    needs_image=True,
    needs_pixels=True,
)

"""Settings that several methods share. A method's settings are a frozen dataclass with documented fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

COLDEST = 1e-3
"""Below this, sampling differs from the most likely token only by rounding, and logits overflow."""

Seed = Annotated[int, Field(ge=0, description="Random seed; every question has its own generator, seeded from it.")]
TopP = Annotated[float, Field(gt=0, le=1, description="Probability mass of the tokens to sample from.")]
Beta = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Excludes tokens whose probability is below this fraction of the most likely token's; "
        "0 excludes none.",
    ),
]


def repeated_layers(layers: Sequence[int] | None) -> list[str]:
    """List the problem of a list of layers with duplicates."""
    if layers is None or len(set(layers)) == len(layers):
        return []
    return [f"layers is {list(layers)}, which contains a layer twice"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """Search settings of a method that scores tokens: greedy, beam search, or sampling."""

    num_beams: Annotated[int, Field(ge=1, description="Number of beams; 1 disables beam search.")] = 1
    temperature: Annotated[float, Field(ge=0, description="Sampling temperature; 0 takes the most likely token.")] = 0.0
    top_p: TopP = 1.0
    seed: Seed = 0

    def problems(self) -> list[str]:
        """List invalid combinations of values."""
        problems = []
        if self.num_beams > 1 and self.temperature > 0:
            problems.append(
                f"num_beams is {self.num_beams} and temperature {self.temperature}, but beam search does not sample"
            )
        if 0 < self.temperature < COLDEST:
            problems.append(f"temperature is {self.temperature}, below {COLDEST}; use 0 for the most likely token")
        if self.top_p < 1 and self.temperature == 0:
            problems.append(f"top_p is {self.top_p}, but temperature is 0, so nothing is sampled; set temperature too")
        return problems

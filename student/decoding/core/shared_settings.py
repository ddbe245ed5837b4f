"""Settings that several methods share. A method's settings are a frozen dataclass; each field says what it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

COLDEST = 1e-3
"""Below it sampling differs from the likeliest token by rounding alone, and logits overflow."""

Seed = Annotated[int, Field(ge=0, description="Seed of everything random; each question has its own chance from it.")]
TopP = Annotated[float, Field(gt=0, le=1, description="Probability mass that is sampled from.")]
Beta = Annotated[
    float,
    Field(ge=0, le=1, description="Tokens less than this times as likely as the likeliest are ruled out; 0: none."),
]


def repeated_layers(layers: Sequence[int] | None) -> list[str]:
    """What is wrong with a list of layers that names one twice."""
    if layers is None or len(set(layers)) == len(layers):
        return []
    return [f"layers is {list(layers)}, which names a layer twice"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """How a method that scores tokens looks for an answer: the likeliest token, beams, or samples."""

    num_beams: Annotated[int, Field(ge=1, description="Beams of a beam search; 1: none.")] = 1
    temperature: Annotated[
        float, Field(ge=0, description="0: the likeliest token; above: sampled, below 1 sharper, above 1 flatter.")
    ] = 0.0
    top_p: TopP = 1.0
    seed: Seed = 0

    def problems(self) -> list[str]:
        """What is wrong with values that are each in their range."""
        found = []
        if self.num_beams > 1 and self.temperature > 0:
            found.append(f"num_beams is {self.num_beams} and temperature {self.temperature}: beams are not sampled")
        if 0 < self.temperature < COLDEST:
            found.append(f"temperature is {self.temperature}, below {COLDEST}: give 0 for the likeliest token")
        if self.top_p < 1 and self.temperature == 0:
            found.append(f"top_p is {self.top_p}, but temperature is 0, so nothing is sampled: set temperature too")
        return found

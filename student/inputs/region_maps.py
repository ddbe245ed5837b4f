"""Annotated regions on the student's grid, as targets of L_att. N patches."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionMaps:
    """For each question, the share of each patch of its first image that its regions cover."""

    maps: Float[Tensor, "maps patches"]
    """The distinct maps; none is zero everywhere."""
    of_question: dict[str, int]
    """Question id -> index in `maps`, for questions with regions."""

    def of(self, question_id: str, images: int) -> Float[Tensor, "images patches"]:
        """The maps of a question's images; zero for an image without regions."""
        found = torch.zeros(images, self.maps.shape[1])
        if images and question_id in self.of_question:
            found[0] = self.maps[self.of_question[question_id]]
        return found

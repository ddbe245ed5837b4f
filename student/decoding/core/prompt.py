"""A batch of prompts, and the same prompts with other images, fewer image tokens, or none.

A method's negative branch reads one of these variants. Image tokens travel apart from the token ids, so that a variant
has its own: what the model reads is what the variant holds. B samples, L positions, K images, N tokens an image.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from ...inputs.spans import ImageSpans


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Prompts padded on the left, with the tokens of their images."""

    input_ids: Int[Tensor, "batch length"]
    attention_mask: Int[Tensor, "batch length"]
    images: ImageSpans
    image_tokens: Float[Tensor, "images tokens width"] | None
    """What the language model reads at the images' places; `None` where the batch has no image."""

    def with_image_tokens(self, image_tokens: Float[Tensor, "images tokens width"]) -> "Prompt":
        """The same prompts with other tokens at the images' places."""
        return replace(self, image_tokens=image_tokens)

    def with_image_tokens_at(self, kept: Int[Tensor, "images kept"]) -> "Prompt":
        """The prompts with some tokens of each image alone; `kept` says which, ascending, as many for each image.

        The others are gone: what follows them moves up, as if the image had fewer tokens.
        """
        assert self.image_tokens is not None
        dropped_KN = torch.ones(self.images.positions.shape, dtype=torch.bool, device=kept.device)
        dropped_KN.scatter_(1, kept, False)
        keep_BL = self.attention_mask.bool()
        sample_KN = self.images.sample[:, None].expand_as(dropped_KN)
        keep_BL[sample_KN[dropped_KN], self.images.positions[dropped_KN]] = False
        shorter, is_image_BL = self._compact(keep_BL)
        samples, positions = is_image_BL.nonzero(as_tuple=True)
        size = kept.shape[1]
        images = ImageSpans(sample=samples[::size], positions=positions.reshape(-1, size))
        tokens = self.image_tokens.gather(1, kept[..., None].expand(-1, -1, self.image_tokens.shape[2]))
        return replace(shorter, images=images, image_tokens=tokens)

    def without_images(self) -> "Prompt":
        """The texts alone."""
        keep_BL = self.attention_mask.bool()
        keep_BL[self.images.sample[:, None], self.images.positions] = False
        shorter, _ = self._compact(keep_BL)
        none = ImageSpans(sample=self.images.sample[:0], positions=self.images.positions[:0])
        return replace(shorter, images=none, image_tokens=None)

    def beside(self, texts: "Prompt") -> "Prompt":
        """These prompts and as many texts without images behind them, in one batch."""
        assert texts.image_tokens is None
        length = max(self.input_ids.shape[1], texts.input_ids.shape[1])
        own, other = length - self.input_ids.shape[1], length - texts.input_ids.shape[1]
        images = ImageSpans(sample=self.images.sample, positions=self.images.positions + own)
        return Prompt(
            # Padding must not be taken for an image: any text token will do there.
            input_ids=torch.cat([_pad(self.input_ids, own, int(texts.input_ids[0, -1])), _pad(texts.input_ids, other)]),
            attention_mask=torch.cat([_pad(self.attention_mask, own), _pad(texts.attention_mask, other)]),
            images=images,
            image_tokens=self.image_tokens,
        )

    def _compact(self, keep_BL: Bool[Tensor, "batch length"]) -> tuple["Prompt", Bool[Tensor, "batch shorter"]]:
        """The kept positions moved to the right end, and which of them are images'."""
        longest = int(keep_BL.sum(dim=1).max())
        order_BL = keep_BL.int().sort(dim=1, stable=True).indices[:, -longest:]
        kept_BL = keep_BL.gather(1, order_BL)
        is_image_BL = torch.zeros_like(keep_BL)
        is_image_BL[self.images.sample[:, None], self.images.positions] = True
        ids_BL = self.input_ids.gather(1, order_BL)
        # A dropped image token that pads must not be taken for an image: any text token will do there.
        ids_BL = torch.where(kept_BL, ids_BL, torch.zeros_like(ids_BL) + ids_BL[:, -1:])
        shorter = replace(self, input_ids=ids_BL, attention_mask=kept_BL.to(self.attention_mask.dtype))
        return shorter, is_image_BL.gather(1, order_BL) & kept_BL


def _pad(values: Int[Tensor, "batch length"], count: int, value: int = 0) -> Int[Tensor, "batch longer"]:
    """Values on the left of each row."""
    return functional.pad(values, (count, 0), value=value)

"""A batch of prompts, and variants of them with other images, fewer image tokens, or none.

A method's negative branch uses one of these variants. Image tokens are separate from token ids, so every variant has
its own image tokens. B samples, L positions, K images, N tokens per image.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from ...inputs.spans import ImageSpans


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Prompts padded on the left, with their image tokens."""

    input_ids: Int[Tensor, "batch length"]
    attention_mask: Int[Tensor, "batch length"]
    images: ImageSpans
    image_tokens: Float[Tensor, "images tokens width"] | None
    """Inputs of the language model at image positions; `None` if the batch has no image."""

    def with_image_tokens(self, image_tokens: Float[Tensor, "images tokens width"]) -> "Prompt":
        """Return the prompts with other image tokens."""
        return replace(self, image_tokens=image_tokens)

    def with_image_tokens_at(self, kept: Int[Tensor, "images kept"]) -> "Prompt":
        """Return the prompts with only some tokens of each image; `kept` has their indices in ascending order.

        The other tokens are removed and later positions move up, as if the image had fewer tokens.
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
        """Return the prompts without images."""
        keep_BL = self.attention_mask.bool()
        keep_BL[self.images.sample[:, None], self.images.positions] = False
        shorter, _ = self._compact(keep_BL)
        none = ImageSpans(sample=self.images.sample[:0], positions=self.images.positions[:0])
        return replace(shorter, images=none, image_tokens=None)

    def beside(self, texts: "Prompt") -> "Prompt":
        """Return these prompts, followed by as many texts without images, in one batch."""
        assert texts.image_tokens is None
        length = max(self.input_ids.shape[1], texts.input_ids.shape[1])
        own, other = length - self.input_ids.shape[1], length - texts.input_ids.shape[1]
        images = ImageSpans(sample=self.images.sample, positions=self.images.positions + own)
        return Prompt(
            # Pad with a text token, because padding must not be an image token.
            input_ids=torch.cat([_pad(self.input_ids, own, int(texts.input_ids[0, -1])), _pad(texts.input_ids, other)]),
            attention_mask=torch.cat([_pad(self.attention_mask, own), _pad(texts.attention_mask, other)]),
            images=images,
            image_tokens=self.image_tokens,
        )

    def _compact(self, keep_BL: Bool[Tensor, "batch length"]) -> tuple["Prompt", Bool[Tensor, "batch shorter"]]:
        """Move the kept positions to the right end, and return which of them are image tokens."""
        longest = int(keep_BL.sum(dim=1).max())
        order_BL = keep_BL.int().sort(dim=1, stable=True).indices[:, -longest:]
        kept_BL = keep_BL.gather(1, order_BL)
        is_image_BL = torch.zeros_like(keep_BL)
        is_image_BL[self.images.sample[:, None], self.images.positions] = True
        ids_BL = self.input_ids.gather(1, order_BL)
        # Replace dropped image tokens by a text token, because padding must not be an image token.
        ids_BL = torch.where(kept_BL, ids_BL, torch.zeros_like(ids_BL) + ids_BL[:, -1:])
        shorter = replace(self, input_ids=ids_BL, attention_mask=kept_BL.to(self.attention_mask.dtype))
        return shorter, is_image_BL.gather(1, order_BL) & kept_BL


def _pad(values: Int[Tensor, "batch length"], count: int, value: int = 0) -> Int[Tensor, "batch longer"]:
    """Pad each row on the left."""
    return functional.pad(values, (count, 0), value=value)

"""The record of one forward pass: what was requested, and the results.

`AlignedStudent.observe` creates it and the model's hooks fill it. K images, N tokens per image.
"""

from dataclasses import dataclass, field
from functools import partial

from jaxtyping import Float
from torch import Tensor

from ..inputs.spans import ImageSpans, TextRows
from .attention_rows import text_to_image_attention
from .attention_taps import SeenAttention, Tap


@dataclass(kw_only=True, eq=False, slots=True)
class Observation:
    """One forward pass of a student's multimodal model. The results remain available after the pass."""

    images: ImageSpans | None = None
    """Positions of the images. Before the pass, None means that they are found in its token ids, for which the host
    waits for the GPU. Once the pass has begun, None means that it has no images."""
    rows: TextRows | None = None
    """The text of each image whose attention to that image is kept; None keeps no attention."""
    layers: tuple[int, ...] = ()
    """Zero-based decoder layers whose attention is kept."""
    blank_image: bool = False
    """Whether a pass without images runs tower, projector and W on a blank image with zero weight."""
    prompt_ends: Tensor | None = None
    """Position of the last token of each sample's prompt, [batch], for the routers of query experts."""
    begun: bool = field(default=False, init=False)
    _tokens: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)
    _attention: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def begin(self, images: ImageSpans | None) -> None:
        """Begin the pass with these images; None if it has no images.

        Raises:
            RuntimeError: this is the second pass.
        """
        if self.begun:
            raise RuntimeError("an observation records one forward pass. Open another `observe` block for the next one")
        self.begun, self.images = True, images

    def tokens_at(self, layer: int) -> Float[Tensor, "images tokens width"]:
        """Image tokens at the input of an aligned layer, after W.

        Raises:
            RuntimeError: the layer is not aligned, or no pass with images has run.
        """
        if layer not in self._tokens:
            raise RuntimeError(f"no image tokens of layer {layer}: it is not aligned, or no pass with images has run")
        return self._tokens[layer]

    def attention_at(self, layer: int) -> Float[Tensor, "images tokens"]:
        """M_a before normalization: attention of each image's text rows to that image, mean over heads and rows.

        Raises:
            RuntimeError: the attention was not requested, or no pass with images has run.
        """
        if layer not in self._attention:
            raise RuntimeError(f"no attention of layer {layer}: it was not requested, or no pass with images has run")
        return self._attention[layer]

    def keep_tokens(self, layer: int, tokens: Float[Tensor, "images tokens width"]) -> None:
        """Keep the image tokens of an aligned layer; called by its hook."""
        self._tokens[layer] = tokens

    def taps(self) -> list[Tap]:
        """Create a tap for the attention of each of `layers`."""
        return [partial(self._keep_attention, layer) for layer in self.layers]

    def _keep_attention(self, layer: int, seen: SeenAttention) -> None:
        if self.images is not None and self.rows is not None:
            self._attention[layer] = text_to_image_attention(
                seen.query, seen.key, seen.mask, seen.scaling, self.images, self.rows
            )

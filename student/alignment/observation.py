"""The record of one forward pass: what was requested of it, and what it showed.

`AlignedStudent.observe` makes it and the model's hooks fill it. K images, N tokens an image.
"""

from dataclasses import dataclass, field
from functools import partial

from jaxtyping import Float
from torch import Tensor

from ..inputs.spans import ImageSpans, QuestionRows
from .attention_rows import question_to_image_attention
from .attention_taps import SeenAttention, Tap


@dataclass(kw_only=True, eq=False, slots=True)
class Observation:
    """One forward pass of a student's multimodal model. What it showed stays readable after the pass."""

    images: ImageSpans | None = None
    """Where the images are. Before the pass, None: look for them in its token ids, for which the host waits for a GPU.
    From its beginning, None: the pass has no images."""
    questions: QuestionRows | None = None
    """The question of each image, whose attention to that image is kept; None: no attention is kept."""
    layers: tuple[int, ...] = ()
    """Zero-based decoder layers whose attention is kept."""
    blank_image: bool = False
    """Whether a pass without images runs tower, projector and W all the same, on a blank image of zero weight."""
    begun: bool = field(default=False, init=False)
    _tokens: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)
    _attention: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def begin(self, images: ImageSpans | None) -> None:
        """The pass begins, with these images; None: it has none.

        Raises:
            RuntimeError: it is the second pass.
        """
        if self.begun:
            raise RuntimeError("an observation is of one forward pass: open another `observe` block for the next one")
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
        """M_a before normalization: attention of each image's question to that image, mean over heads and tokens.

        Raises:
            RuntimeError: it was not requested, or no pass with images has run.
        """
        if layer not in self._attention:
            raise RuntimeError(f"no attention of layer {layer}: it was not requested, or no pass with images has run")
        return self._attention[layer]

    def keep_tokens(self, layer: int, tokens: Float[Tensor, "images tokens width"]) -> None:
        """Called by the hook of an aligned layer."""
        self._tokens[layer] = tokens

    def taps(self) -> list[Tap]:
        """A tap for the attention of each of `layers`."""
        return [partial(self._see_attention, layer) for layer in self.layers]

    def _see_attention(self, layer: int, seen: SeenAttention) -> None:
        if self.images is not None and self.questions is not None:
            self._attention[layer] = question_to_image_attention(
                seen.query, seen.key, seen.mask, seen.scaling, self.images, self.questions
            )

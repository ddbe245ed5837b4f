"""Alignment parts of one decoder layer: the rotation at its input, and attention with taps."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ...choices import RotationMode
from ..inputs.spans import ImageSpans
from .attention_taps import make_tappable
from .rotation import Rotation

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a decoder layer."""


class AlignedLayer(nn.Module):
    """Alignment parts of decoder layer `layer` (zero-based); the decoder layer itself stays in the language model.

    In `train_only` mode, W acts only on the image tokens that are compared with the teacher, not on the layer's input.
    """

    def __init__(self, layer: int, decoder_layer: nn.Module, width: int, mode: RotationMode) -> None:
        super().__init__()
        self.layer = layer
        self.mode = mode
        self.rotation = None if mode == "none" else Rotation(width)
        make_tappable(decoder_layer.self_attn)

    def rotate(
        self, images: ImageSpans, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Float[Tensor, "images patches width"], Arguments | None]:
        """Rotate the image tokens in the decoder layer's input, before the layer runs.

        Returns:
            The image tokens for the losses, and the layer's new arguments; None if they do not change.
        """
        hidden_BLD = args[0] if args else kwargs["hidden_states"]
        where = (images.sample[:, None], images.positions)
        tokens_KND = hidden_BLD[where]
        if self.rotation is None:
            return tokens_KND, None
        tokens_KND = self.rotation(tokens_KND)
        if self.mode == "full":
            return tokens_KND, _with_hidden(hidden_BLD.index_put(where, tokens_KND), args, kwargs)
        if not self.training:
            return tokens_KND, None
        return tokens_KND, _with_hidden(hidden_BLD + zero_with_gradient(tokens_KND), args, kwargs)

    def rotate_without_images(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """Run W on a batch without images, before the decoder layer runs, without changing any value."""
        if self.rotation is None:
            return None
        hidden_BLD = args[0] if args else kwargs["hidden_states"]
        return _with_hidden(hidden_BLD + zero_with_gradient(self.rotation(hidden_BLD[:, :1])), args, kwargs)


def zero_with_gradient(values: Tensor) -> Float[Tensor, ""]:
    """Return 0, with a zero gradient for everything that `values` depend on."""
    return (0.0 * values).sum()


def _with_hidden(hidden_BLD: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Replace the hidden states in a decoder layer's arguments."""
    if args:
        return (hidden_BLD, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": hidden_BLD}

"""What alignment adds to one decoder layer: the rotation at its input, and attention that can be tapped."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..inputs.spans import ImageSpans
from .attention_taps import make_tappable
from .rotation import Rotation, RotationMode

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a decoder layer."""


class AlignedLayer(nn.Module):
    """Sits beside decoder layer `layer` (zero-based) of a language model; the decoder layer itself stays in the model.

    In `train_only` mode W acts on what is compared with the teacher and the layer's input stays as it is.
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
        """Before the decoder layer runs: rotate the image tokens among its inputs.

        Returns:
            The image tokens as the losses compare them, and the layer's arguments where they change.
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
        return tokens_KND, _with_hidden(hidden_BLD + of_no_weight(tokens_KND), args, kwargs)

    def rotate_nothing(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """Before the decoder layer runs on a batch without images: W runs all the same, and changes nothing."""
        if self.rotation is None:
            return None
        hidden_BLD = args[0] if args else kwargs["hidden_states"]
        return _with_hidden(hidden_BLD + of_no_weight(self.rotation(hidden_BLD[:, :1])), args, kwargs)


def of_no_weight(values: Tensor) -> Float[Tensor, ""]:
    """0, with a gradient of 0 for everything that `values` come from."""
    return (0.0 * values).sum()


def _with_hidden(hidden_BLD: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """A decoder layer's arguments with other hidden states."""
    if args:
        return (hidden_BLD, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": hidden_BLD}

"""What alignment adds to one decoder layer: the rotation at its input, and the attention rows that L_att compares."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from .capture import AttentionCapture
from .rotation import Rotation, RotationMode
from .spans import ImageSpans


class AlignedLayer(nn.Module):
    """Sits beside decoder layer `layer` (zero-based) of a language model; the decoder layer itself stays in the model.

    In `train_only` mode W acts on what is compared with the teacher and the layer's input stays as it is.
    """

    def __init__(self, layer: int, decoder_layer: nn.Module, width: int, mode: RotationMode) -> None:
        super().__init__()
        self.layer = layer
        self.mode = mode
        self.rotation = None if mode == "none" else Rotation(width)
        self.capture = AttentionCapture(decoder_layer.self_attn)
        self._tokens: Tensor | None = None

    def rotate(
        self, images: ImageSpans, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before the decoder layer runs: rotate the image tokens among its inputs and keep them for the losses."""
        hidden_BLD = args[0] if args else kwargs["hidden_states"]
        where = (images.sample[:, None], images.positions)
        self._tokens = hidden_BLD[where]
        if self.rotation is None:
            return None
        self._tokens = self.rotation(self._tokens)
        if self.mode == "train_only":
            return _with_hidden(hidden_BLD + of_no_weight(self._tokens), args, kwargs) if self.training else None
        return _with_hidden(hidden_BLD.index_put(where, self._tokens), args, kwargs)

    def rotate_nothing(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before the decoder layer runs on a batch without images: W runs all the same, and changes nothing."""
        if self.rotation is None:
            return None
        hidden_BLD = args[0] if args else kwargs["hidden_states"]
        return _with_hidden(hidden_BLD + of_no_weight(self.rotation(hidden_BLD[:, :1])), args, kwargs)

    def take_tokens(self) -> Float[Tensor, "images patches width"] | None:
        """The image tokens of the last forward pass, which are then forgotten; `None` where it had no images."""
        tokens, self._tokens = self._tokens, None
        return tokens


def of_no_weight(values: Tensor) -> Float[Tensor, ""]:
    """0, with a gradient of 0 for everything that `values` come from."""
    return (0.0 * values).sum()


def _with_hidden(
    hidden_BLD: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A decoder layer's arguments with other hidden states."""
    if args:
        return (hidden_BLD, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": hidden_BLD}

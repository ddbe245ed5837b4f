"""Sink tokens: image tokens that take much of the attention on every image, whatever the image shows.

Trained transformers park attention on tokens that carry no content of their own: the first tokens of a text (Xiao et
al. 2023, arXiv:2309.17453), and patches of uniform background in vision transformers, which then hold global
information (registers; Darcet et al. 2023, arXiv:2309.16588). A bright cell there says nothing about what the student
looks at. Here a token is a sink if its share of the attention on the image is above `SINK_FACTOR` times that of uniform
attention, on at least `SINK_IMAGES` of the images. N tokens.
"""

from typing import Final

from jaxtyping import Bool, Float
from torch import Tensor

SINK_FACTOR: Final = 3.0
"""A sink has more than this many times the attention of a token under uniform attention."""
SINK_IMAGES: Final = 0.9
"""Smallest part of the images on which a sink has that much attention."""
FEWEST_IMAGES: Final = 10
"""With fewer images, no sinks are reported: a bright cell on each of them could be their content."""


def attention_shares(attention: Float[Tensor, "*batch token"]) -> Float[Tensor, "*batch token"]:
    """Each token's part of the attention on its image; nan if the image has none."""
    shares: Tensor = attention / attention.sum(-1, keepdim=True)
    return shares


def find_sinks(attention: Float[Tensor, "image *batch token"]) -> Bool[Tensor, "*batch token"]:
    """Which tokens are sinks, for example in each layer; `attention` has one map per image and is not normalized."""
    bright = attention_shares(attention) > SINK_FACTOR / attention.shape[-1]
    return bright.double().mean(0) >= SINK_IMAGES - 1e-9


def share_of_tokens(
    attention: Float[Tensor, "*batch token"], tokens: Bool[Tensor, "... token"]
) -> Float[Tensor, "*batch"]:
    """The part of each map's attention that is on some tokens, in [0, 1]; nan if the image has none.

    The shape of `tokens` is broadcast to that of `attention`.
    """
    return (attention_shares(attention) * tokens).sum(-1)

"""Phantoms as training data for the demo's tiny models: pixels, caption slots and questions.

A caption is a list of slots (the kind of image, the appearance of each organ, the heart, the finding), each filled by
one of a few phrases. The image towers learn from slots: like a medical CLIP they see captions, never masks.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from ...progress import Progress
from ...teacher_cache.geometry.pixels import to_pixels
from ...teacher_cache.geometry.square import fill_color, to_square
from ..data.phantoms.draw import draw_phantom
from ..data.phantoms.phantom import DESCRIBED, LESION_KINDS, LESION_SITES, Phantom
from ..data.phantoms.phantom_questions import PhantomQuestion, ask

IMAGE_SIZE = 96
NO_PHRASE = -100
"""Target of a slot that is not in an image's caption."""

SLOTS: dict[str, tuple[str, ...]] = {
    "image": ("radiograph", "CT"),
    **{
        f"{organ} {look}": phrases
        for organ in dict.fromkeys([*DESCRIBED["radiograph"], *DESCRIBED["CT"]])
        for look, phrases in (("brightness", ("dark", "bright")), ("texture", ("smooth", "coarse")))
    },
    "heart size": ("normal", "enlarged"),
    "lesion": ("none", *dict.fromkeys([*LESION_KINDS["radiograph"], *LESION_KINDS["CT"]])),
    "site": ("none", *dict.fromkeys([*LESION_SITES["radiograph"], *LESION_SITES["CT"]])),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """P phantoms, S slots."""

    pixels: Float[Tensor, "phantoms 3 96 96"]
    slots: Int[Tensor, "phantoms slots"]
    """Index of the phrase in each slot; NO_PHRASE if the caption does not have the slot."""
    questions: tuple[tuple[PhantomQuestion, ...], ...]
    """The request for a caption and all questions for each phantom, with their answers."""
    phantoms: tuple[Phantom, ...]


def draw_corpus(
    seed: int,
    count: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    progress: Progress,
    *,
    first: int = 0,
    shift: float = 0.0,
) -> Corpus:
    """Draw `count` phantoms of series `seed` from number `first` on, on the padded square, normalized."""
    progress.start(f"drawing {count} phantoms", count)
    phantoms, pixels = [], []
    numbers = range(first, first + count)
    for index in numbers:
        phantom = draw_phantom(seed, index, shift=shift)
        image = Image.fromarray(phantom.pixels).convert("RGB")
        pixels.append(to_pixels(to_square(image, IMAGE_SIZE, "pad", fill_color(mean)), mean, std))
        phantoms.append(phantom)
        progress.advance()
    return Corpus(
        pixels=torch.stack(pixels),
        slots=torch.tensor([_slots(phantom) for phantom in phantoms]),
        questions=tuple(_questions(phantom, seed, index) for index, phantom in zip(numbers, phantoms, strict=True)),
        phantoms=tuple(phantoms),
    )


def _questions(phantom: Phantom, seed: int, index: int) -> tuple[PhantomQuestion, ...]:
    """Two draws of the questions about a phantom, each different one once."""
    draws = [ask(phantom, np.random.default_rng([seed, index, number])) for number in (1, 3)]
    return tuple({item.question: item for draw in draws for item in draw}.values())


def joined(one: Corpus, other: Corpus) -> Corpus:
    """The phantoms of both."""
    return Corpus(
        pixels=torch.cat([one.pixels, other.pixels]),
        slots=torch.cat([one.slots, other.slots]),
        questions=one.questions + other.questions,
        phantoms=one.phantoms + other.phantoms,
    )


def batches(count: int, size: int, steps: int, generator: torch.Generator) -> list[Int[Tensor, " batch"]]:
    """`steps` batches of indices below `count`; each epoch has a new random order."""
    size = min(size, count)  # no repeats within a batch
    epochs = -(-steps * size // count) + 1
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(epochs)])
    return list(order[: steps * size].split(size))


def _slots(phantom: Phantom) -> list[int]:
    filled = {"image": phantom.modality, "heart size": "enlarged" if phantom.enlarged_heart else "normal"}
    if phantom.modality == "CT":
        del filled["heart size"]
    for organ, look in phantom.looks.items():
        filled[f"{organ} brightness"], filled[f"{organ} texture"] = look.brightness, look.texture
    lesion = phantom.lesions[0] if phantom.lesions else None
    filled["lesion"], filled["site"] = (lesion.kind, lesion.organ) if lesion else ("none", "none")
    return [phrases.index(filled[name]) if name in filled else NO_PHRASE for name, phrases in SLOTS.items()]

"""Squares and pixel hashes have the same bits as an RGB copy padded and resized by Pillow."""

import hashlib
from io import BytesIO

import numpy as np
import pytest
from medalign.teacher_cache.geometry.gray_padding import pad_and_resize_gray
from medalign.teacher_cache.geometry.square import to_square
from medalign.teacher_cache.images import decode_image
from PIL import Image

FILL = (122, 116, 104)


def noise(width: int, height: int, seed: int) -> Image.Image:
    """Noise with runs of black and white, whose overshoot is clipped."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    values[: height // 3], values[-height // 4 :] = values[: height // 3] // 128 * 255, 0
    return Image.fromarray(values)


def square_by_pillow(image: Image.Image, size: int) -> Image.Image:
    """LLaVA's padding: RGB on a square of the fill color, then resized."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), FILL)
    square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((size, size), Image.Resampling.BICUBIC)


SIDES = np.random.default_rng(20).integers(3, 600, (24, 2)).tolist()
SHAPES = [(2544, 3056), (336, 500), (500, 336), (337, 336), (1, 90), (90, 1), (600, 601), *SIDES]


@pytest.mark.parametrize("size", [96, 224, 336])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_squares_match_pillow(mode, size):
    for seed, (width, height) in enumerate(SHAPES):
        image = noise(width, height, seed)
        if mode == "RGB":
            channels = [noise(width, height, seed + 1), noise(width, height, seed + 2)]
            image = Image.merge("RGB", [image, *channels])
        ours = to_square(image, size, "pad", FILL)
        assert ours.mode == "RGB"
        assert ours.tobytes() == square_by_pillow(image, size).tobytes(), (width, height)


def test_padding_an_upright_gray_image_needs_no_rgb_copy():
    image = noise(500, 700, seed=0)
    square = pad_and_resize_gray(image, 700, 100, 96, FILL)
    assert square is not None
    assert square.tobytes() == square_by_pillow(image, 96).tobytes()


def test_a_filter_that_differs_from_pillow_is_detected(monkeypatch):
    """The columns computed by this package are compared with Pillow's."""
    from medalign.teacher_cache.geometry import gray_padding

    gray_padding._weights.cache_clear()
    monkeypatch.setattr(gray_padding, "_A", -0.75)  # OpenCV's bicubic filter
    image = noise(300, 400, seed=1)
    assert pad_and_resize_gray(image, 400, 50, 96, FILL) is None
    assert to_square(image, 96, "pad", FILL).tobytes() == square_by_pillow(image, 96).tobytes()
    gray_padding._weights.cache_clear()


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (320, 320)])
def test_gray_crops_match_rgb(shape):
    image = noise(*shape, seed=2)
    ours, other = to_square(image, 96, "crop", FILL), to_square(image.convert("RGB"), 96, "crop", FILL)
    assert ours.tobytes() == other.tobytes()


def test_decoded_gray_keeps_one_channel_and_its_hash():
    image, file = noise(40, 30, seed=3), BytesIO()
    image.save(file, "PNG")
    decoded = decode_image(file.getvalue())
    assert (decoded.shown.mode, decoded.rgb.mode, decoded.width, decoded.height) == ("L", "RGB", 40, 30)
    assert decoded.pixel_hash == hashlib.sha256(b"L 40x30\n" + image.tobytes()).hexdigest()

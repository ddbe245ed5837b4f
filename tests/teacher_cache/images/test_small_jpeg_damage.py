"""Holes and missing parts are detected in small JPEGs too, where damage often keeps the number of blocks."""

import io
import random

import numpy as np
import pytest
from medalign.teacher_cache.images import UnreadableImage, decode_image
from odd_rasters import saved
from PIL import Image


def cells(width: int, height: int, seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def scan(data: bytes) -> tuple[int, int]:
    """Begin of the last scan's entropy-coded data (T.81 B.2.3: a header, whose length stands first) and its length."""
    header = data.rindex(b"\xff\xda") + 2
    start = header + int.from_bytes(data[header : header + 2], "big")
    return start, len(data) - 2 - start


def damaged(data: bytes, kind: str, at: float, share: float) -> bytes:
    start, length = scan(data)
    cut, lost = start + int(length * at), int(length * share)
    return data[:cut] + (bytes(lost) if kind == "hole" else b"") + data[cut + lost :]


def is_refused(data: bytes) -> bool:
    try:
        decode_image(data)
    except UnreadableImage as error:
        return "truncated or damaged image data" in error.reason
    return False


def wrong_share(data: bytes, whole: Image.Image) -> float:
    with Image.open(io.BytesIO(data)) as image:
        gap = np.abs(np.asarray(image.convert("RGB")).astype(int) - np.asarray(whole.convert("RGB")).astype(int))
    return float((gap.max(axis=2) > 30).mean())


@pytest.mark.parametrize("size", [(64, 48), (128, 128), (256, 256)])
@pytest.mark.parametrize("kind", ["hole", "drop"])
def test_holes_and_missing_parts_are_detected_in_small_pictures(kind, size):
    """Except for damage that keeps the number of blocks, which the length of the data does not reveal."""
    wrong = missed = 0
    for seed in range(24):
        picture = cells(*size, seed).convert("L" if seed % 2 else "RGB")
        data = saved(picture, "JPEG", quality=(30, 75, 90)[seed % 3])
        broken = damaged(data, kind, 0.05 + 0.02 * seed, 0.1 if seed % 4 < 2 else 0.25)
        if wrong_share(broken, picture) > 0.05:
            wrong += 1
            missed += not is_refused(broken)
    assert wrong > 12
    assert missed <= 2


@pytest.mark.parametrize("surplus", [b"\x11" * 20 + b"\xff\0\1\2\3", b"\x11" * 200 + b"\xff\0\xff\0\xff\0"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_surplus_with_a_stuffed_byte_before_the_end_is_rejected(mode, surplus):
    """The last bytes are changed to test whether they have an effect; an 0xFF before them must not become a marker."""
    data = saved(cells(64, 48, 1).convert(mode), "JPEG", quality=90)
    assert is_refused(data[:-2] + surplus + data[-2:])


def whole_file(chance: random.Random) -> bytes:
    width, height = chance.choice([(1, 1), (7, 5), (8, 8), (17, 9), (33, 65), (64, 48), (100, 30), (255, 120)])
    seed = chance.randrange(1 << 30)
    values = {
        "noise": lambda: np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8),
        "flat": lambda: np.full((height, width, 3), seed % 256, np.uint8),
        "gray of missing data": lambda: np.full((height, width, 3), 128, np.uint8),
        "cells": lambda: np.asarray(cells(width, height, seed)),
    }[chance.choice(["noise", "flat", "gray of missing data", "cells"])]()
    mode = chance.choice(["L", "RGB", "CMYK"])
    options: dict[str, object] = {"quality": chance.choice([1, 30, 75, 95, 100]), "optimize": chance.random() < 0.5}
    options["progressive"] = chance.random() < 0.3
    if mode == "RGB":
        options["subsampling"] = chance.choice([0, 1, 2])
    if chance.random() < 0.3:
        options["restart_marker_blocks"] = chance.choice([1, 2, 3, 8])
    data = saved(Image.fromarray(values).convert(mode), "JPEG", **options)
    fill = b"\xff" * chance.choice([0, 0, 0, 1, 2])
    return (
        data[:-2] + fill + data[-2:] + chance.choice([b"", b"", b"\0", b"\0" * 7, b"\r\n", b"\xff\xd9", b"noise" * 9])
    )


def test_intact_files_of_many_kinds_are_read():
    chance = random.Random(5)
    for _ in range(150):
        decode_image(whole_file(chance))


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "411", "440"])
@pytest.mark.parametrize("level", [10, 80, 99])
def test_intact_files_of_another_encoder_are_read(level, subsampling):
    imagecodecs = pytest.importorskip("imagecodecs")
    for size in [(64, 48), (33, 65), (250, 200)]:
        values = np.asarray(cells(*size, level))
        for optimize, smoothing in ((False, 0), (True, 30)):
            data = imagecodecs.jpeg8_encode(
                values, level=level, subsampling=subsampling, optimize=optimize, smoothing=smoothing
            )
            assert decode_image(data).width == size[0]

"""CUDA copies, tested with a recording fake of CUDA: same bits, pinned memory, separate streams, right order."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from medalign.teacher_cache.geometry.pixels import to_pixel_batch, to_pixels
from medalign.teacher_cache.store.format import profiles
from medalign.teacher_cache.store.format.profiles import PROFILES, encode, encode_on_device
from medalign.teacher_cache.teachers.registry import OPENAI_MEAN, OPENAI_STD
from medalign.teacher_cache.workers.device_copies import PinnedCopies, PlainCopies, copies_of
from medalign.teacher_cache.workers.prefetch import PreparedImage
from PIL import Image

NOTES: list[str] = []


class Stream:
    """Records `wait_stream` and `record_stream` with the names of the streams."""

    def __init__(self, device: object, name: str | None = None) -> None:
        self.name = name or f"side {sum(note.startswith('new') for note in NOTES)}"
        NOTES.append(f"new {self.name}")

    def wait_stream(self, other: "Stream") -> None:
        NOTES.append(f"{self.name} waits for {other.name}")


class Event:
    def record(self, stream: Stream) -> None:
        NOTES.append(f"event on {stream.name}")

    def synchronize(self) -> None:
        NOTES.append("host waits")


class RecordingCuda:
    Stream, Event = Stream, Event

    def __init__(self) -> None:
        NOTES.clear()
        self.computing = Stream(None, "computing")

    def current_stream(self, device: object) -> Stream:
        return self.computing

    @contextmanager
    def stream(self, stream: Stream):
        NOTES.append(f"enter {stream.name}")
        yield
        NOTES.append(f"leave {stream.name}")


@pytest.fixture
def copies(monkeypatch):
    """A CPU tensor with `record_stream`, which PyTorch does not implement there."""
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: NOTES.append(f"kept for {stream.name}"))

    def pinned(shape, dtype):
        NOTES.append("pinned")
        return torch.full(tuple(shape), 7, dtype=dtype)

    return PinnedCopies(torch.device("cpu"), RecordingCuda(), pinned)


def prepared(seed: int, side: int) -> PreparedImage:
    square = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return PreparedImage(image_hash="a", pixel_hash="b", size=(1, 1), square=square, narrow=False)


def test_pixels_are_copied_pinned_on_a_side_stream_that_kernels_wait_for(copies, teacher):
    images = [prepared(seed, teacher.spec.image_size) for seed in range(3)]
    NOTES.clear()
    pixels = copies.pixels(teacher, images)
    expected = [to_pixels(Image.fromarray(image.square), OPENAI_MEAN, OPENAI_STD) for image in images]
    assert torch.equal(pixels, torch.stack(expected))
    assert torch.equal(pixels, PlainCopies().pixels(teacher, images))
    wanted = ["pinned", "enter side 1", "leave side 1", "computing waits for side 1", "kept for computing"]
    assert wanted == NOTES


def test_rows_are_copied_pinned_on_another_stream_and_the_host_waits_once(copies, teacher):
    grid = teacher.spec.grid
    torch.manual_seed(3)
    patches, attention = torch.randn(5, grid.patches, 16), torch.rand(5, grid.patches)
    rows = encode_on_device("float16", patches, attention, grid, grid)
    NOTES.clear()
    pending = copies.rows(rows)
    assert NOTES[:2] == ["side 2 waits for computing", "enter side 2"]
    assert NOTES[2:-2] == ["kept for side 2", "pinned"] * 3
    assert NOTES[-2:] == ["event on side 2", "leave side 2"]
    arrived = pending.wait()
    assert NOTES[-1] == "host waits"
    assert NOTES.count("host waits") == 1
    expected = encode("float16", patches, attention, grid, grid)
    assert all(np.array_equal(arrived.arrays[name], expected.arrays[name]) for name in expected.arrays)
    assert np.array_equal(arrived.max_abs_dS, expected.max_abs_dS)


@pytest.mark.parametrize("profile", PROFILES)
def test_encoding_a_whole_batch_equals_encoding_it_in_parts(profile, monkeypatch, teacher):
    """Equal except for the last bits of products of other shapes, because a device encodes a whole batch at once."""
    grid = teacher.spec.grid
    torch.manual_seed(4)
    patches, attention = torch.randn(5, grid.patches, 16), torch.rand(5, grid.patches)
    parts = encode(profile, patches, attention, grid, grid)
    monkeypatch.setattr(profiles, "_IMAGES_AT_ONCE", 5)
    whole = encode(profile, patches, attention, grid, grid)
    for name, values in parts.arrays.items():
        assert values.shape == whole.arrays[name].shape
        difference = abs(values.astype(np.float64) - whole.arrays[name])
        assert difference.max() <= 1e-3 + (profile.startswith("gram") and name == "cosines"), name
    np.testing.assert_allclose(parts.max_abs_dS, whole.max_abs_dS, atol=1e-5)


def test_all_levels_are_normalized_to_the_same_bits():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    square = np.stack([levels, levels.T, levels[::-1]], axis=2)
    batch = to_pixel_batch(torch.from_numpy(square)[None], OPENAI_MEAN, OPENAI_STD)
    mean, std = np.float32(OPENAI_MEAN), np.float32(OPENAI_STD)
    expected = (square.astype(np.float32) / np.float32(255) - mean) / std
    assert np.array_equal(batch[0].permute(1, 2, 0).numpy(), expected)


def test_only_cuda_copies_are_pinned():
    assert isinstance(copies_of(torch.device("cpu")), PlainCopies)
    assert isinstance(copies_of(torch.device("mps")), PlainCopies)

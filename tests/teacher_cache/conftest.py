"""Fixtures: a tiny teacher with random weights, images, and a finished store of them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extractions import options_of
from medalign.teacher_cache.extraction.stage_one import ExtractionReport, ImageSource, extract
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.forward import Teacher
from medalign.teacher_cache.teachers.teacher_loading import load_teacher
from medalign.teacher_cache.teachers.towers import build_tower
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture
def memory_path(tmp_path) -> Iterator[Path]:
    """A folder in memory if the system has one, because ext4 flushes a file to disk when it replaces another."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 28):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="medalign-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def phantom_weights(tmp_path_factory) -> Path:
    torch.manual_seed(11)
    path = tmp_path_factory.mktemp("weights") / "phantom.safetensors"
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def teacher(phantom_weights) -> Teacher:
    return load_teacher("phantom-tiny", phantom_weights)


def write_image(path: Path, seed: int) -> ImageSource:
    """A noisy PNG whose size depends on the seed."""
    random = np.random.default_rng(seed)
    height, width = 40 + seed % 17, 56 - seed % 13
    Image.fromarray(random.integers(0, 256, (height, width), dtype=np.uint8)).save(path)
    return source_of(path)


def source_of(path: Path) -> ImageSource:
    return ImageSource(path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(scope="session")
def make_images(tmp_path_factory) -> Callable[[int], list[ImageSource]]:
    """`make_images(n)`: the first n of one seeded series of images."""
    folder = tmp_path_factory.mktemp("images")
    made: list[ImageSource] = []

    def make(count: int) -> list[ImageSource]:
        while len(made) < count:
            made.append(write_image(folder / f"{len(made)}.png", len(made)))
        return made[:count]

    return make


@pytest.fixture(scope="session")
def run_extract(teacher) -> Callable[..., ExtractionReport]:
    """`extract` with the small settings that most tests use."""

    def run(images: list[ImageSource], out: Path, **settings: Any) -> ExtractionReport:
        defaults = {"grid": PatchGrid(6, 6), "batch_size": 2, "shard_rows": 3, "threads": 1, "decode_workers": 2}
        chosen, progress = settings.pop("teacher", teacher), settings.pop("progress", None)
        return extract(chosen, images, out, options_of(**defaults | settings), progress=progress)

    return run


@pytest.fixture(scope="session")
def truncated(tmp_path_factory) -> ImageSource:
    """A JPEG that lost its second half."""
    path = tmp_path_factory.mktemp("bad") / "patient-jane-doe.jpg"
    random = np.random.default_rng(5)
    Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return source_of(path)


@pytest.fixture(scope="session")
def finished(make_images, run_extract, truncated, tmp_path_factory) -> Path:
    """A store of 8 images and a failure (row 4), in three shards. Tests copy it before they damage it."""
    out = tmp_path_factory.mktemp("stores") / "finished.zarr"
    images = make_images(8)
    run_extract([*images[:4], truncated, *images[4:]], out)
    return out

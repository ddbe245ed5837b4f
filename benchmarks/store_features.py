"""Teacher outputs to store: of real towers with random weights, or drawn. A part of benchmarks/store.py."""

from dataclasses import dataclass

import numpy as np
import torch
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.geometry.pixels import to_pixels
from medalign.teacher_cache.geometry.square import fill_color, to_square
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.forward import Teacher
from medalign.teacher_cache.teachers.towers import build_tower
from PIL import Image, ImageDraw, ImageFilter

GRID = PatchGrid(24, 24)
TEACHERS = ("unimed-b16-224", "unimed-l14-336")
"""196 patches of 768 channels, 576 of 1024."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """What one teacher says about a few images."""

    name: str
    native: PatchGrid
    patches: torch.Tensor
    """[images, M, b] float32"""
    attention: torch.Tensor
    """[images, M]"""


def tower_features(name: str, images: int) -> Features:
    """Of open_clip's tower with its own random initial weights."""
    torch.manual_seed(0)
    spec = teacher_spec(name)
    tower = build_tower(spec).eval().requires_grad_(False)
    teacher = Teacher(spec=spec, tower=tower, device=torch.device("cpu"), dtype="float32", weights_sha256="0" * 64)
    fill = fill_color(spec.mean)
    squares = [to_square(drawn_image(seed), spec.image_size, "pad", fill) for seed in range(images)]
    outputs = [teacher.forward(to_pixels(square, spec.mean, spec.std)[None]) for square in squares]
    return Features(
        name=name,
        native=spec.grid,
        patches=torch.cat([output.patches for output in outputs]),
        attention=torch.cat([output.attention for output in outputs]),
    )


def random_features(name: str, images: int) -> Features:
    """Smooth over the grid, with a direction that all patches share, noise, and one channel far above the others."""
    spec = teacher_spec(name)
    generator = torch.Generator().manual_seed(0)
    half = spec.width // 2
    sides = [torch.linspace(0, 6, side) for side in (spec.grid.rows, spec.grid.columns)]
    at = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)
    made = []
    for _ in range(images):
        waves = at.reshape(-1, 2) @ torch.randn(2, half, generator=generator) / 2
        smooth = torch.cat([waves.sin(), waves.cos()], dim=1)
        patches = smooth + 0.6 * torch.randn(spec.grid.patches, spec.width, generator=generator) + 1
        patches[:, 5] = 15 + 3 * patches[:, 5]
        made.append(patches)
    attention = torch.rand(images, spec.grid.patches, generator=generator).softmax(dim=1)
    return Features(name=name, native=spec.grid, patches=torch.stack(made), attention=attention)


def drawn_image(seed: int) -> Image.Image:
    """Bright and dark ellipses on a dark ground with noise: a poor man's radiograph, 640 x 512."""
    random = np.random.default_rng(seed)
    image = Image.new("L", (640, 512), 25)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = random.integers([0, 0, 40, 40], [560, 440, 320, 260])
        pen.ellipse([x, y, x + w, y + h], fill=int(random.integers(40, 230)))
    smooth = np.asarray(image.filter(ImageFilter.GaussianBlur(4)), dtype=np.float32)
    noisy = smooth + random.normal(0, 6, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert("RGB")

"""A bright square at a known position is in the same grid cell for teacher and student."""

import pytest
import torch
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.geometry.pixels import interpolate_patches, to_pixels
from medalign.teacher_cache.geometry.square import Geometry, fill_color, to_square
from medalign.teacher_cache.teachers import TEACHERS, TeacherSpec
from medalign.teacher_cache.teachers.registry import OPENAI_MEAN, OPENAI_STD
from PIL import Image, ImageDraw

GRID = PatchGrid(24, 24)
STUDENT_SIZE = 336
SHAPES = {"1:1": (480, 480), "4:3": (640, 480), "3:4": (480, 640), "2:1": (640, 320)}
PLACES = [(0.35, 0.35), (0.6, 0.4), (0.5, 0.65)]


def draw(size: tuple[int, int], place: tuple[float, float]) -> Image.Image:
    """A white square around `place` (fractions of width and height) on the color of the padding."""
    image = Image.new("RGB", size, fill_color(OPENAI_MEAN))
    x, y = place[0] * size[0], place[1] * size[1]
    ImageDraw.Draw(image).rectangle((x - 20, y - 20, x + 19, y + 19), fill="white")
    return image


def expected_cell(size: tuple[int, int], place: tuple[float, float]) -> torch.Tensor:
    """Expected position with `pad`: (row, column) in cells of GRID, computed by hand."""
    side = max(size)
    x = (side - size[0]) // 2 + place[0] * size[0]
    y = (side - size[1]) // 2 + place[1] * size[1]
    return torch.tensor([y / side * GRID.rows, x / side * GRID.columns])


def centroid(pixels: torch.Tensor, native: PatchGrid) -> torch.Tensor:
    """Center of brightness above the background, (row, column) in cells of GRID; the grid is the teacher's
    way."""
    bright = (pixels.mean(0) - pixels.mean(0).min() - 0.3).clamp(min=0)
    height, width = bright.shape
    cells = bright.reshape(native.rows, height // native.rows, native.columns, width // native.columns)
    on_grid = interpolate_patches(cells.mean((1, 3)).reshape(1, -1, 1), native, GRID)[0, :, 0]
    weights = on_grid.reshape(GRID.rows, GRID.columns) / on_grid.sum()
    centers = torch.arange(GRID.rows) + 0.5
    return torch.stack([(weights.sum(1) * centers).sum(), (weights.sum(0) * centers).sum()])


def seen_by_teacher(image: Image.Image, spec: TeacherSpec, geometry: Geometry) -> torch.Tensor:
    square = to_square(image, spec.image_size, geometry, fill_color(spec.mean))
    return centroid(to_pixels(square, spec.mean, spec.std), spec.grid)


def seen_by_student(image: Image.Image) -> torch.Tensor:
    square = to_square(image, STUDENT_SIZE, "pad", fill_color(OPENAI_MEAN))
    return centroid(to_pixels(square, OPENAI_MEAN, OPENAI_STD), GRID)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TEACHERS)
def test_pad_registers_and_crop_does_not(name, shape, place):
    size, spec = SHAPES[shape], TEACHERS[name]
    image = draw(size, place)
    student, teacher = seen_by_student(image), seen_by_teacher(image, spec, "pad")
    torch.testing.assert_close(student, expected_cell(size, place), atol=0.5, rtol=0)
    torch.testing.assert_close(teacher, student, atol=0.5, rtol=0)
    cropped = seen_by_teacher(image, spec, "crop")
    miss = (cropped - student).abs().max()
    if shape == "1:1":
        assert miss <= 0.5
    else:
        assert miss > 0.5, f"crop lands at {cropped.tolist()}, the student at {student.tolist()}"

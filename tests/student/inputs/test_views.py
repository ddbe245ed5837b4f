"""The boxes of cells are where a model's preprocessing takes each cell's pixels from."""

import numpy as np
import pytest
from medalign.student.inputs.image_processing import CLIP_MEAN, CLIP_STD, StudentImages
from medalign.student.inputs.views import ImageLayout, View, inside, square_layout
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.geometry.square import to_square
from PIL import Image

GRID = PatchGrid(4, 4)
SIZES = [(48, 48), (96, 40), (37, 80), (200, 16)]


def lit(width, height, box):
    """A black image that is white in a box."""
    x, y, box_width, box_height = (round(value) for value in box)
    pixels = np.zeros((height, width), np.uint8)
    pixels[y : y + box_height, x : x + box_width] = 255
    return Image.fromarray(pixels)


def brightest_cell(square):
    """The cell of a 4x4 grid with the largest mean, row-major, of [size, size]."""
    side = len(square) // 4
    return int(np.asarray(square, float).reshape(4, side, 4, side).mean(axis=(1, 3)).argmax())


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_cell_of_the_padded_square_shows_its_box(width, height):
    images = StudentImages(size=32, grid=GRID, mean=CLIP_MEAN, std=CLIP_STD)
    shown = 0
    for token, box in images.layout(width, height).cells():
        visible = inside(box, width, height)
        if visible is None or min(visible[2:]) < 2:
            continue
        light = images.pixels(lit(width, height, visible))[0].numpy()
        dark = images.pixels(Image.new("L", (width, height)))[0].numpy()
        assert brightest_cell(light - dark) == token
        shown += 1
    padded = sum(inside(box, width, height) is None for _, box in images.layout(width, height).cells())
    assert shown >= 4
    assert (padded > 0) == (max(width, height) >= 2 * min(width, height))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_cell_of_the_cropped_square_shows_its_box(width, height):
    for token, box in square_layout(width, height, GRID, "crop").cells():
        assert inside(box, width, height) == pytest.approx(box)
        square = to_square(lit(width, height, box), 32, "crop", (0, 0, 0))
        assert brightest_cell(np.asarray(square)[..., 0]) == token


def test_boxes_of_a_wide_image_reach_above_and_below_it():
    (view,) = square_layout(400, 200, PatchGrid(2, 2)).views
    assert view.box == (0, -100, 400, 400)
    assert [box for _, box in view.cells()] == [
        (0, -100, 200, 200),
        (200, -100, 200, 200),
        (0, 100, 200, 200),
        (200, 100, 200, 200),
    ]
    assert inside(view.cell(0, 1), 400, 200) == (200, 0, 200, 100)
    assert inside((0.0, -100.0, 200.0, 100.0), 400, 200) is None


def test_several_views_take_their_own_tokens():
    """An overview, then two halves whose rows end with a separator that lies in no view."""
    whole = View(rows=1, columns=2, box=(0.0, 0.0, 8.0, 4.0), tokens=(0, 1))
    halves = View(rows=2, columns=2, box=(0.0, 0.0, 8.0, 4.0), tokens=(2, 3, 5, 6))
    layout = ImageLayout(views=(whole, halves), tokens=8)
    values = [1.0, 2.0, 3.0, 4.0, 99.0, 5.0, 6.0, 99.0]
    assert whole.on_grid(values).tolist() == [[1, 2]]
    assert halves.on_grid(np.array(values)).tolist() == [[3, 4], [5, 6]]
    assert [token for token, _ in layout.cells()] == [0, 1, 2, 3, 5, 6]
    assert dict(layout.cells())[5] == (0, 2, 4, 2)


def test_views_must_fit_the_image():
    with pytest.raises(ValueError, match="3 tokens do not form a grid of 2x2"):
        View(rows=2, columns=2, box=(0.0, 0.0, 8.0, 8.0), tokens=(0, 1, 2))
    view = View(rows=1, columns=2, box=(0.0, 0.0, 8.0, 8.0), tokens=(3, 4))
    with pytest.raises(ValueError, match="tokens 3 to 4, but the image has tokens 0 to 3"):
        ImageLayout(views=(view,), tokens=4)

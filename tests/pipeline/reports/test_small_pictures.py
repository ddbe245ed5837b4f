"""Small pictures of overlays: each pixel has the color of its cell, and regions have outlines."""

import io

import numpy as np
import polars as pl
import pytest
from medalign.pipeline.reports.figures.bars import bars
from medalign.pipeline.reports.figures.overlay_pixels import heat_colors
from medalign.pipeline.reports.figures.overlays import MapView, Outline, Overlay, overlays
from medalign.pipeline.reports.figures.small_pictures import small_picture
from PIL import Image


def pixels_of(*panels, **settings):
    """The panels of the picture without their titles, each of 60 x 30 pixels."""
    figure = overlays(name="a", title="", caption="", alt="a", panels=panels, **settings)
    with Image.open(io.BytesIO(small_picture(figure, side=60, columns=2))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape[1] == (60 if len(panels) == 1 else 124)
    return [pixels[16:46, left : left + 60] for left in (0, 64)[: len(panels)]]


def gray(level):
    return Image.new("L", (120, 60), level)


def expected(level, value, low, high):
    *color, opacity = heat_colors(np.array([value]), low, high)[0]
    return [level * (1 - opacity) + 255 * part * opacity for part in color]


def test_every_cell_is_where_its_view_is():
    """A square view reaches 30 pixels of the image beyond it above and below; the second view is a quarter."""
    square = MapView(rows=2, columns=2, box=(0.0, -30.0, 120.0, 120.0), values=[0.0, 1.0, 2.0, 3.0])
    quarter = MapView(rows=1, columns=1, box=(0.0, 0.0, 60.0, 30.0), values=[4.0])
    (first, second) = pixels_of(
        Overlay(title="one", image=gray(100), views=(square,)),
        Overlay(title="two", image=gray(100), views=(square, quarter)),
    )
    for x, y, value in ((15, 7, 0.0), (45, 7, 1.0), (15, 22, 2.0), (45, 22, 3.0)):
        assert first[y, x] == pytest.approx(expected(100, value, 0, 3), abs=12)
    assert second[22, 45] == pytest.approx(expected(100, 3.0, 0, 4), abs=12)
    below = expected(100, 0.0, 0, 4)
    assert second[7, 15] == pytest.approx(expected(below[0], 4.0, 0, 4), abs=25)


def test_saturation_keeps_a_sink_from_hiding_the_rest():
    values = [*np.linspace(0, 1, 49), 1000.0]
    panel = Overlay(
        title="", image=gray(0), views=(MapView(rows=5, columns=10, box=(0.0, 0.0, 120.0, 60.0), values=values),)
    )
    (dark,), (bright,) = pixels_of(panel), pixels_of(panel, saturation=0.95)
    assert dark[27, 50].sum() < 30
    assert bright[27, 50].sum() > 200


def test_values_that_are_not_finite_and_images_without_maps():
    view = MapView(rows=1, columns=2, box=(0.0, 0.0, 120.0, 60.0), values=[float("nan"), 1.0])
    plain, half = pixels_of(Overlay(title="", image=gray(80)), Overlay(title="", image=gray(80), views=(view,)))
    assert plain[15, 30] == pytest.approx([80] * 3, abs=3)
    assert half[15, 15] == pytest.approx([80] * 3, abs=6)


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_regions_have_a_light_line_with_a_dark_one_around(kind):
    mask = np.zeros((60, 120), dtype=bool)
    mask[20:40, 40:80] = True
    outline = Outline(name="r", mask=mask) if kind == "mask" else Outline(name="r", box=(40.0, 20.0, 40.0, 20.0))
    (pixels,) = pixels_of(Overlay(title="", image=gray(128), outlines=(outline,)))
    light = (pixels[..., 2] - pixels[..., 0] > 60).nonzero()
    assert (light[0].min(), light[0].max()) == pytest.approx((10, 19), abs=1)
    assert (light[1].min(), light[1].max()) == pytest.approx((20, 39), abs=1)
    assert pixels[15, 30] == pytest.approx([128] * 3, abs=12), "nothing inside"
    assert pixels[9, 30].sum() < 250


def test_other_kinds_are_refused():
    points = pl.DataFrame({"panel": [""], "group": ["a"], "series": ["b"], "value": [1.0]})
    with pytest.raises(ValueError, match="of kind 'bars'"):
        small_picture(bars(name="b", title="", caption="", alt="b", points=points, value_label=""))

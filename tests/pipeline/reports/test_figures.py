"""Figures: what is saved is all that is needed to draw them, and what is drawn stands where it should."""

import io
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from figure_examples import WORDS, gray_image, one_of_each, overlay_figure
from medalign.errors import InputError
from medalign.pipeline.data import saved_tables
from medalign.pipeline.reports.figures.drawing import KINDS, draw
from medalign.pipeline.reports.figures.figure import Figure, figure_name
from medalign.pipeline.reports.figures.figure_files import draw_again, read_figure, write_figures
from medalign.pipeline.reports.figures.overlays import MapView, Outline, Overlay
from medalign.pipeline.reports.figures.style import series_style
from medalign.progress import Silent
from PIL import Image


def luminance(color: str) -> float:
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    write_figures(folder, one_of_each())
    return folder


def test_there_is_an_example_of_every_kind():
    assert {figure.kind for figure in one_of_each()} == set(KINDS)


def test_a_saved_figure_is_the_same_figure(drawn):
    for figure in one_of_each():
        saved = read_figure(drawn / f"{figure.name}.parquet")
        assert saved.table.equals(figure.table)
        for name in ("name", "kind", "title", "caption", "alt", "settings"):
            assert getattr(saved, name) == getattr(figure, name)


def test_saved_data_draw_the_same_pictures(drawn):
    before = {path.name: path.read_bytes() for path in drawn.glob("*.[ps][nv]g")}
    assert len(before) == 2 * len(KINDS)
    for path in drawn.glob("*.[ps][nv]g"):
        path.unlink()
    assert {path.name: path.read_bytes() for path in draw_again(drawn, Silent()).pictures} == before


def test_svgs_keep_their_text_and_name_no_other_file(drawn):
    for figure in one_of_each():
        text = (drawn / f"{figure.name}.svg").read_text()
        assert "<text" in text
        assert 'href="http' not in text.replace('href="http://www.w3.org', "")


def test_a_changed_data_file_is_refused(drawn, tmp_path):
    data = bytearray((drawn / "scores.parquet").read_bytes())
    data[100] ^= 1
    (tmp_path / "scores.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"scores\.parquet is damaged.*run the command that wrote the report again"):
        draw_again(tmp_path, Silent())


def test_a_table_that_is_no_figure_and_a_newer_figure_are_refused(tmp_path):
    figure = one_of_each()[0]
    saved_tables.write(tmp_path / "a.parquet", figure.table)
    with pytest.raises(InputError, match="is not a figure of medalign"):
        read_figure(tmp_path / "a.parquet")
    header = {"format": "medalign-figure", "version": 2, "name": "a", "kind": "lines", "settings": {}} | WORDS
    saved_tables.write(tmp_path / "a.parquet", figure.table, header)
    with pytest.raises(InputError, match=r"version 2; this medalign draws .* up to version 1"):
        read_figure(tmp_path / "a.parquet")


def test_a_folder_without_figures_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no figures"):
        draw_again(tmp_path, Silent())


def test_names_are_safe_file_names():
    assert figure_name("MEDALIGN (2), layer 3/../x") == "medalign-2-layer-3-x"
    with pytest.raises(ValueError, match="is not a figure's name"):
        Figure(name="../x", kind="lines", table=one_of_each()[0].table, **WORDS)


def test_every_series_differs_in_more_than_color():
    shapes = [(style.marker, style.hatch) for style in map(series_style, range(8))]
    assert len(set(shapes)) == 8
    styles = [series_style(index) for index in range(16)]
    assert len({(style.color, style.marker) for style in styles}) == 16
    assert all(luminance(style.color) < 0.75 for style in styles), "each is visible on white, also in grayscale"


def test_attention_is_brighter_where_it_is_larger_in_grayscale():
    """The cell of the largest value is the brightest of a dark and of a bright image."""
    for gray in (20, 160):
        view = MapView(rows=2, columns=2, box=(0, 0, 40, 40), values=(0.0, 0.1, 0.2, 1.0))
        (png,) = draw(overlay_figure([Overlay(title="", image=gray_image(40, 40, gray), views=(view,))]), "png")
        cells = _cells(png)
        assert cells[1, 1] > max(cells[0, 0], cells[0, 1], cells[1, 0]) + 20


def test_a_view_is_drawn_where_its_box_is_in_the_image():
    """A wide image in a padded square: the rows of cells in the padding are not drawn, and the others not moved."""
    values = np.zeros((4, 4))
    values[1, 3] = 1.0  # rows 1 and 2 cover the image, whose square begins 10 pixels above it
    view = MapView(rows=4, columns=4, box=(0, -10, 40, 40), values=values.ravel().tolist())
    (png,) = draw(overlay_figure([Overlay(title="", image=gray_image(40, 20), views=(view,))]), "png")
    picture = _inside(png)
    brightest = np.unravel_index(np.argmax(_pooled(picture, 2, 4)), (2, 4))
    assert brightest == (0, 3)


def test_several_views_of_one_image_share_their_colors():
    low = MapView(rows=1, columns=1, box=(0, 0, 20, 40), values=(0.2,))
    high = MapView(rows=1, columns=1, box=(20, 0, 20, 40), values=(1.0,))
    (png,) = draw(overlay_figure([Overlay(title="", image=gray_image(40, 40), views=(low, high))]), "png")
    left, right = _pooled(_inside(png), 1, 2)[0]
    assert right > left + 20


def test_the_outline_of_a_mask_is_drawn_at_its_border():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 20:36] = True
    (plain,) = draw(overlay_figure([Overlay(title="", image=gray_image(40, 40))]), "png")
    (png,) = draw(
        overlay_figure([Overlay(title="", image=gray_image(40, 40), outlines=(Outline(name="a", mask=mask),))]), "png"
    )
    changed = np.abs(_inside(png).astype(int) - _inside(plain).astype(int)) > 10
    rows, columns = np.nonzero(changed)
    side = changed.shape[0]
    assert np.allclose([rows.min() / side * 40, rows.max() / side * 40], [10, 30], atol=1)
    assert np.allclose([columns.min() / side * 40, columns.max() / side * 40], [20, 36], atol=1)


def _inside(png: bytes) -> np.ndarray:
    """Gray levels of the image of a figure with one panel: all that is not the white around it."""
    with Image.open(io.BytesIO(png)) as picture:
        gray = np.asarray(picture.convert("L"))
    rows, columns = np.nonzero(gray < 250)
    return gray[rows.min() + 1 : rows.max(), columns.min() + 1 : columns.max()]


def _pooled(gray: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return np.array(
        [[cell.mean() for cell in np.array_split(row, columns, 1)] for row in np.array_split(gray, rows, 0)]
    )


def _cells(png: bytes) -> np.ndarray:
    return _pooled(_inside(png), 2, 2)


@pytest.mark.parametrize("figure", one_of_each(), ids=lambda figure: figure.kind)
def test_a_figure_without_rows_says_so(figure):
    (svg,) = draw(replace(figure, table=figure.table.clear()), "svg")
    assert b"no values" in svg


@pytest.mark.parametrize("figure", one_of_each()[:4], ids=lambda figure: figure.kind)
def test_numbers_that_no_axis_has_and_names_that_no_font_has_are_drawn_without_a_warning(figure):
    """Of six values only one can be drawn; warnings are errors."""
    odd = pl.Series([math.nan, math.inf, -math.inf, 1e308, None, 1.5], dtype=pl.Float64)
    rows = pl.concat([figure.table.head(1)] * 6)
    numbers = [name for name, kind in rows.schema.items() if kind.is_float()]
    names = [name for name, kind in rows.schema.items() if kind == pl.String]
    table = rows.with_columns(
        *(odd.alias(name) for name in numbers),
        pl.lit("中\x07<b>$x$").alias(names[0]),
        *(pl.lit(None, dtype=pl.String).alias(name) for name in names[1:]),
    )
    (svg,) = draw(replace(figure, table=table), "svg")
    assert "中".encode() in svg


def test_the_legend_of_many_series_leaves_room_for_their_lines():
    """Warnings are errors, also the one that a figure has no room left."""
    rows = [{"panel": "", "series": f"series {number:02}", "x": 0, "y": 1.0} for number in range(60)]
    (svg,) = draw(replace(one_of_each()[0], table=pl.DataFrame(rows)), "svg")
    assert b"the first 30 of 60" in svg
    assert b"series 29" in svg
    assert b"series 30" not in svg

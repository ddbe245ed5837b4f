"""Curves of characters, compared with the dots that a slow drawing sets."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.pipeline.text_curve import draw_curve, has_braille

POINTS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40).map(lambda ys: list(enumerate(ys, 1)))


def dots_of(lines, margin, width, braille):
    """(row, column) of every dot in the drawn lines."""
    found = set()
    for row, line in enumerate(lines):
        for column, character in enumerate(line[margin : margin + width]):
            if not braille and character == "*":
                found.add((row, column))
            elif braille and character != " ":
                bits = ord(character) - 0x2800
                for bit, (down, across) in enumerate([(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]):
                    if bits >> bit & 1:
                        found.add((4 * row + down, 2 * column + across))
    return found


@pytest.mark.parametrize("braille", [False, True])
@settings(max_examples=30)
@given(points=POINTS)
def test_the_curve_goes_through_every_point_without_a_gap(braille, points):
    width, height = 30, 4
    title, *lines, axis = draw_curve("t", points, x_label="step", braille=braille, width=width, height=height)
    low, high = min(y for _, y in points), max(y for _, y in points)
    margin = lines[0].index("\N{BOX DRAWINGS LIGHT VERTICAL AND LEFT}" if braille else "+") + 1
    columns, rows = width * (2 if braille else 1), height * (4 if braille else 1)
    dots = dots_of(lines, margin, width, braille)
    for index, (_, y) in enumerate(points):
        column = index / (len(points) - 1) * (columns - 1)
        row = (high - y) / (high - low) * (rows - 1) if high > low else (rows - 1) / 2
        assert any(abs(row - r) <= 0.51 and abs(column - c) <= 0.51 for r, c in dots)
    for column in range(1, columns):
        here, before = ({r for r, c in dots if c == place} for place in (column, column - 1))
        assert min(abs(a - b) for a in here for b in before) <= 1
    assert title == "t"
    assert lines[0].split()[0] == f"{high:.4g}"
    assert axis.split() == ["step", "1", str(len(points))]
    assert max(map(len, [*lines, axis])) <= margin + width


def test_a_falling_line():
    points = [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]
    assert draw_curve("loss", points, x_label="step", braille=False, width=8, height=4) == [
        "loss",
        "4 +**",
        "  |  **",
        "  |    **",
        "1 +      **",
        "   step 0 3",
    ]


def test_braille_needs_an_encoding_and_a_font(monkeypatch):
    def stream(encoding):
        return io.TextIOWrapper(io.BytesIO(), encoding=encoding)

    monkeypatch.setenv("TERM", "xterm")
    assert has_braille(stream("utf-8"))
    assert not has_braille(stream("latin-1"))
    assert not has_braille(stream("ascii"))
    assert not has_braille(io.StringIO())
    monkeypatch.setenv("TERM", "linux")
    assert not has_braille(stream("utf-8"))

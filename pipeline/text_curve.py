"""Curves drawn with characters, for the terminal: braille dots, or asterisks where the encoding lacks them."""

import math
import os
from collections.abc import Sequence
from typing import Any, Final

Point = tuple[float, float]

_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the dots of a braille character, which has four rows and two columns (Unicode, U+2800)."""
_BLANK: Final = 0x2800
_AXIS: Final = "\N{BOX DRAWINGS LIGHT VERTICAL}"
_TICK: Final = "\N{BOX DRAWINGS LIGHT VERTICAL AND LEFT}"


def has_braille(stream: Any) -> bool:
    """Whether a stream's encoding has braille and box characters; the text consoles of Linux have no such glyphs."""
    if os.environ.get("TERM") in ("linux", "dumb"):
        return False
    try:
        (chr(_BLANK | 0xFF) + _AXIS + _TICK).encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def draw_curve(
    title: str, points: Sequence[Point], *, x_label: str, braille: bool, width: int = 60, height: int = 6
) -> list[str]:
    """Lines of text with a curve through `points`, its first and last x, and its lowest and highest y.

    Neighboring points are joined by straight lines.

    Args:
        title: Printed above the curve.
        points: (x, y) with finite values, at least two with different x, in the order of x.
        x_label: Printed before the first x.
        braille: Draw with braille dots (2 x 4 per character) instead of asterisks.
        width: Characters of the curve, without the labels of y.
        height: Lines of the curve.
    """
    across, down = (2, 4) if braille else (1, 1)
    low, high = min(y for _, y in points), max(y for _, y in points)
    dots = _dots(points, (low, high), width * across, height * down)
    body = [_line(dots, row, width, braille) for row in range(height)]
    top, bottom = f"{high:.4g}", f"{low:.4g}" if high > low else ""
    margin = max(len(top), len(bottom))
    labels = [top, *[""] * (height - 2), bottom]
    tick, axis = (_TICK, _AXIS) if braille else ("+", "|")
    lines = [
        f"{label:>{margin}} {tick if label else axis}{text}".rstrip() for label, text in zip(labels, body, strict=True)
    ]
    first, last = f"{x_label} {points[0][0]:g}", f"{points[-1][0]:g}"
    return [title, *lines, f"{'':>{margin + 2}}{first}{last:>{max(width - len(first), len(last) + 1)}}"]


def _dots(points: Sequence[Point], limits: Point, columns: int, rows: int) -> set[tuple[int, int]]:
    """The (row, column) of every dot of the curve; rows count from the top."""
    (low, high), first, last = limits, points[0][0], points[-1][0]

    def place(point: Point) -> tuple[float, float]:
        x, y = point
        row = (high - y) / (high - low) * (rows - 1) if high > low else (rows - 1) / 2
        return row, (x - first) / (last - first) * (columns - 1)

    dots = set()
    for (row_a, column_a), (row_b, column_b) in zip(map(place, points), map(place, points[1:]), strict=False):
        steps = max(1, math.ceil(max(abs(row_b - row_a), column_b - column_a)))
        for step in range(steps + 1):
            share = step / steps
            dots.add((round(row_a + share * (row_b - row_a)), round(column_a + share * (column_b - column_a))))
    return dots


def _line(dots: set[tuple[int, int]], row: int, width: int, braille: bool) -> str:
    if not braille:
        return "".join("*" if (row, column) in dots else " " for column in range(width))
    characters = []
    for column in range(width):
        bits = sum(
            bit
            for down, line in enumerate(_DOTS)
            for across, bit in enumerate(line)
            if (4 * row + down, 2 * column + across) in dots
        )
        characters.append(chr(_BLANK | bits) if bits else " ")
    return "".join(characters)

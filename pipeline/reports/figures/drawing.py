"""Draw any figure as PNG and SVG."""

import io
from collections.abc import Callable, Mapping
from typing import Final, Literal

from matplotlib.figure import Figure as Canvas

from . import bars, histograms, lines, matrices, overlays, points
from .figure import Figure
from .style import drawing_style

Format = Literal["png", "svg"]
KINDS: Final[Mapping[str, Callable[[Figure], Canvas]]] = {
    kind.KIND: kind.draw for kind in (bars, histograms, lines, matrices, overlays, points)
}
_DPI: Final = 110


def draw(figure: Figure, *formats: Format) -> list[bytes]:
    """Draw a figure once; return it in each of these formats.

    Raises:
        KeyError: No kind of figure has this name.
    """
    with drawing_style():
        canvas = KINDS[figure.kind](figure)
        return [_saved(canvas, name) for name in formats]


def _saved(canvas: Canvas, name: Format) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if name == "svg" else {"Software": None}
    canvas.savefig(buffer, format=name, dpi=_DPI, metadata=metadata)
    return buffer.getvalue()

"""The look that all figures share: colors that colorblind readers can distinguish, each with a marker, dash and hatch.

A series is never told from another by color alone, so that figures can be read in grayscale.
"""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from ....plain_text import shown, with_terms_joined

PANEL_WIDTH: Final = 3.6
"""Width of a panel, in inches."""
PANEL_HEIGHT: Final = 2.8
RESOLUTION: Final = 110
"""Pixels of an inch in PNG files."""
_LEGEND_PART: Final = 0.4
"""Largest part of a figure's height for its legend, except for a few lines."""
_LEGEND_LINE: Final = 0.17
"""Height of a line of a legend, in inches."""
_SETTINGS: Final[dict[str, Any]] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "figure.facecolor": "white",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,  # TrueType: text can be edited, as publishers require
    "svg.fonttype": "none",  # text remains text: small files, and it can be searched
    "svg.hashsalt": "medalign",  # equal figures have equal bytes
    "text.parse_math": False,  # a dollar sign in a question is a dollar sign
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesStyle:
    """How one series is drawn."""

    color: str
    marker: str
    dash: Any
    hatch: str


_COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d00")
"""Okabe and Ito's palette, without its yellow, which is too light on white."""
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: Final = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)), (0, (8, 2)), (0, (3, 3)), "-")
_HATCHES: Final = ("", "//", "..", "\\\\", "xx", "--", "oo", "++")


def series_style(index: int) -> SeriesStyle:
    """The style of the series with this index; after eight, colors repeat with other markers, dashes and hatches."""
    turn, place = divmod(index, len(_COLORS))
    other = (place + turn * 3) % len(_COLORS)
    return SeriesStyle(color=_COLORS[place], marker=_MARKERS[other], dash=_DASHES[other], hatch=_HATCHES[other])


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw with these settings, whatever the user's own matplotlib configuration says.

    Letters that no installed font has are boxes in PNG files; a user, who cannot change that, is not warned.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph ", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def panel_grid(
    panels: int, columns: int, *, width: float = PANEL_WIDTH, height: float = PANEL_HEIGHT
) -> tuple[Canvas, list[Any]]:
    """An empty figure with this number of panels, and its axes."""
    columns = max(1, min(columns, panels))
    rows = math.ceil(panels / columns)
    canvas = Canvas(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = list(canvas.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.set_axis_off()
    return canvas, axes[:panels]


def label(text: object, longest: int = 60) -> str:
    """Text for a picture: without control characters, and shortened."""
    clean = " ".join(shown(str(text)).split())
    return clean if len(clean) <= longest else clean[: longest - 3].rstrip() + "..."


def wrapped(text: str, width: int) -> str:
    """Text in several lines of about `width` characters, broken between words, but not before a percent sign."""
    lines: list[str] = []
    for word in re.split(r"[ \n]+", with_terms_joined(text.strip())):
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def shared_legend(canvas: Canvas, axes: list[Any], names: int) -> None:
    """One legend for all panels below them, if there is more than one series; what has no room there is counted."""
    handles: dict[str, Any] = {}
    for panel in axes:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if names > 1:
        width = canvas.get_figwidth()
        longest = max(map(len, handles))
        columns = max(1, min(len(handles), int(width * 11 / (longest + 6))))
        most = columns * max(4, int(canvas.get_figheight() * _LEGEND_PART / _LEGEND_LINE))
        canvas.legend(
            list(handles.values())[:most], list(handles)[:most], loc="outside lower left", ncols=columns,
            markerscale=1.6, title=f"the first {most} of {len(handles)}" if len(handles) > most else None,
        )  # fmt: skip

"""Shares and intervals as text: `12 %` and `[0.1, 0.2]` in every sentence, table and caption of an inspection."""

from ...plain_text import decimal_text
from ..evaluation.statistics import Difference


def percent(share: float | None, places: int = 0) -> str:
    """A share as percent; a dash if there is none.

    >>> from medalign.pipeline.inspection.number_text import percent
    >>> percent(0.25), percent(0.123, 1)
    ('25 %', '12.3 %')
    """
    return "-" if share is None else f"{decimal_text(100 * share, places)} %"


def interval_text(low: float, high: float, places: int = 3, *, signed: bool = False) -> str:
    """Both ends of an interval; those of a change are signed.

    >>> from medalign.pipeline.inspection.number_text import interval_text
    >>> interval_text(0.1, 0.25), interval_text(-0.1, 0.25, 2, signed=True)
    ('[0.100, 0.250]', '[-0.10, +0.25]')
    """
    return f"[{decimal_text(low, places, signed=signed)}, {decimal_text(high, places, signed=signed)}]"


def percent_interval(share: float, low: float, high: float) -> str:
    """A share with its interval.

    >>> from medalign.pipeline.inspection.number_text import percent_interval
    >>> percent_interval(0.4, 0.31, 0.52)
    '40 % [31 %, 52 %]'
    """
    return f"{percent(share)} [{percent(low)}, {percent(high)}]"


def change_text(change: Difference | None) -> str:
    """A difference with its 95 % interval; empty without one."""
    if change is None:
        return ""
    return f"{decimal_text(change.mean, 3, signed=True)} {interval_text(change.low, change.high, signed=True)}"

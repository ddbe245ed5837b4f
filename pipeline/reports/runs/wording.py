"""How numbers and notices are written on the pages of runs."""

import re
from collections.abc import Sequence

from ....choices import DataUse
from ....plain_text import decimal_text, signed_text

_AUDIENCE: dict[DataUse, str] = {
    "public": "they may be passed on under their own license",
    "credentialed": "they may go only to people who have signed their data-use agreement",
    "private": "they must not be shared without their owner's permission",
}


def percent(share: float | None, places: int = 1) -> str:
    """A share as percent; a dash if there is none.

    >>> from medalign.pipeline.reports.runs.wording import percent
    >>> percent(0.714), percent(None)
    ('71.4\\xa0%', '\u2013')
    """
    return "\N{EN DASH}" if share is None else f"{decimal_text(100 * share, places)}\N{NO-BREAK SPACE}%"


def span(low: float | None, high: float | None, factor: float = 100, places: int = 1) -> str:
    """An interval in the unit of its value; empty if there is none.

    >>> from medalign.pipeline.reports.runs.wording import span
    >>> span(0.601, 0.819)
    '60.1 to 81.9'
    """
    if low is None or high is None or low != low or high != high:
        return ""
    return f"{decimal_text(factor * low, places)} to {decimal_text(factor * high, places)}"


def points(difference: float) -> str:
    """A difference of two shares in percentage points.

    >>> from medalign.pipeline.reports.runs.wording import points
    >>> points(0.032)
    '+3.2 points'
    """
    return f"{signed_text(100 * difference, 1)} points"


def listed(items: Sequence[str], most: int = 6) -> str:
    """Items in a sentence.

    >>> from medalign.pipeline.reports.runs.wording import listed
    >>> listed(["a", "b", "c"]), listed("abcdefgh", most=2)
    ('a, b and c', 'a, b and 6 more')
    """
    shown = list(items[:most])
    rest = len(items) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def warning_texts(lines: Sequence[str], *, after_a_name: bool = False) -> list[str]:
    """Warnings as a page shows them: as sentences, and without a pointer to a file, which a passed-on page has not.

    Args:
        lines: The warnings of the terminal.
        after_a_name: They begin with a name, which keeps its letters.

    >>> from medalign.pipeline.reports.runs.wording import warning_texts
    >>> warning_texts(["one image is few (docs/comparison.md)"])
    ['One image is few.']
    """
    plain = [re.sub(r" \(docs/[\w-]+\.md\)", "", line).removesuffix(".") + "." for line in lines]
    return plain if after_a_name else [line[:1].upper() + line[1:] for line in plain]


def sharing_notice(contents: str, data_use: DataUse | None) -> str:
    """What a page contains, and who is allowed to have it; `None`: the data-use class is not known."""
    if data_use is None:
        return (
            f"The page contains {contents}. Their data-use class is not known, because the manifest was not read: "
            "treat them as private."
        )
    return f"The page contains {contents}. Their data-use class is {data_use}: {_AUDIENCE[data_use]}."

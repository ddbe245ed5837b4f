"""The "did you mean" of every message: the known name that is nearest to one that is not known."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_CUTOFF = 0.5
"""Lowest difflib ratio of two names that may be confused."""


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The known names that are most like `name`, the nearest first; at most `most` of them."""
    return get_close_matches(name, list(known), n=most, cutoff=_CUTOFF)


def did_you_mean(names: Sequence[str], quote: str = "'") -> str:
    """` (did you mean 'beta'?)` of suggested names, to be put behind the name that is not known.

    >>> did_you_mean(["store verify", "assets verify"], quote="`")
    ' (did you mean `store verify` or `assets verify`?)'
    >>> did_you_mean([])
    ''
    """
    return f" (did you mean {' or '.join(f'{quote}{name}{quote}' for name in names)}?)" if names else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The nearest known name as ` (did you mean 'beta'?)`; nothing where none is near.

    >>> suggestion("betta", ("alpha", "beta"))
    " (did you mean 'beta'?)"
    """
    return did_you_mean(nearest(name, known))

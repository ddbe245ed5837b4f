"""The "did you mean" of error messages: the known name closest to an unknown one."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_CUTOFF = 0.5
"""Lowest difflib ratio at which a name is suggested."""


def nearest(name: str, known: Iterable[str], most: int = 1, cutoff: float = _CUTOFF) -> list[str]:
    """The known names most similar to `name`, the closest first; at most `most` of them."""
    return get_close_matches(str(name), list(known), n=most, cutoff=cutoff)


def did_you_mean(names: Sequence[str], quote: str = "'") -> str:
    """` (did you mean 'beta'?)` with suggested names, to append to the unknown name.

    >>> did_you_mean(["store verify", "assets verify"], quote="`")
    ' (did you mean `store verify` or `assets verify`?)'
    >>> did_you_mean([])
    ''
    """
    if not names:
        return ""
    *first, last = [f"{quote}{name}{quote}" for name in names]
    return f" (did you mean {', '.join(first)}{' or ' if first else ''}{last}?)"


def suggestion(name: str, known: Iterable[str]) -> str:
    """The closest known name as ` (did you mean 'beta'?)`; empty if none is close.

    >>> suggestion("betta", ("alpha", "beta"))
    " (did you mean 'beta'?)"
    """
    return did_you_mean(nearest(name, known))

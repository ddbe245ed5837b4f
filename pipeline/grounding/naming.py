"""Which of an image's annotated regions a question is about."""

import re
from collections.abc import Sequence

from ..regions import Region


def regions_named(question: str, answer: str | None, regions: Sequence[Region]) -> tuple[Region, ...]:
    """The regions that a question names; where it names none, those that its reference answer names.

    A name counts as whole words, in any case, singular or plural ("left lung"); longer names are looked for first and
    take their words, so that "left lung" does not name `lung` too. A region of which only the last word stands there
    counts as well: "kidneys" names `left kidney` and `right kidney`.
    """
    for text in (question, answer or ""):
        names = _names_in(text, {region.name for region in regions})
        if names:
            return tuple(region for region in regions if region.name in names)
    return ()


def _names_in(text: str, names: set[str]) -> set[str]:
    found: set[str] = set()
    for name in sorted(names, key=lambda name: (-len(name), name)):
        rest = re.sub(_pattern(name), " | ", text)
        if rest != text:
            found.add(name)
            text = rest
    return found | {name for name in names if re.search(_pattern(re.split(r"[\s_]+", name)[-1]), text)}


def _pattern(name: str) -> re.Pattern[str]:
    words = r"[\s_]+".join(map(re.escape, re.split(r"[\s_]+", name.strip())))
    return re.compile(rf"(?<!\w){words}(?:e?s)?(?!\w)", re.IGNORECASE)

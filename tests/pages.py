"""Pages of docs/how-to as programs: their fenced blocks, run in order in a folder.

A block is run by what its fence says:

    ```bash                 commands, by one real bash; `medalign` and `python FILE` run in this process (see shell.py)
    ```pycon                a Python session, by doctest; a page has one session
    ```text                 what the block before it prints; `...` stands for anything, blanks and line breaks for one another
    ```yaml title="a.yaml"  a file that the reader saves, in any language

An HTML comment right before a block changes how it is run: `<!-- needs: WHY -->` does not run it (its commands are only
parsed), `<!-- exits: N -->` expects this exit code of its last command, `<!-- killed: N -->` kills the command when N
batches or steps are done.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
BLOCK = re.compile(r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (needs|exits|killed): ([^\n]+?) -->\n\Z")
RUN = ("bash", "pycon", "text")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str | None
    text: str
    line: int
    """Of the page, from 1."""
    needs: str | None = None
    exits: int = 0
    killed: int | None = None


def blocks(page: str) -> Iterator[Block]:
    """Every block with its mark, in order.

    Raises:
        AssertionError: a block could not run, and neither is a file nor says what it needs.
    """
    fences = len(re.findall(r"^ *```", page, re.MULTILINE))
    found = list(BLOCK.finditer(page))
    assert 2 * len(found) == fences, f"{fences} fences, but {len(found)} blocks with a language, not indented"
    for match in found:
        mark = MARK.search(page[: match.start()])
        name, value = mark.groups() if mark else (None, "")
        language, title, text = match.group("language", "title", "text")
        line = page[: match.start()].count("\n") + 1
        assert title or language in RUN, f"line {line}: a block of {language} needs a title"
        yield Block(
            language=language,
            title=title,
            text=text,
            line=line,
            needs=value if name == "needs" else None,
            exits=int(value) if name == "exits" else 0,
            killed=int(value) if name == "killed" else None,
        )


def is_shown(expected: str, printed: str) -> bool:
    """Whether a block of text is part of what was printed; `...` stands for anything, and any blanks for any others."""
    parts = [re.escape(part) for part in " ".join(expected.split()).split("...")]
    return re.search(".*?".join(parts), " ".join(printed.split())) is not None

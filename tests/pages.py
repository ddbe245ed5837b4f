"""Pages of docs/how-to as programs: their fenced blocks, run in order in a folder.

A block is run by what its fence says:

    ```bash                 commands, by one real bash; `medalign` and `python FILE` run in this process (page_shell.py)
    ```pycon                a Python session, by doctest; a page has one session
    ```text                 what the block before it prints; `...` stands for anything, any blanks for one another
    ```yaml title="a.yaml"  a file that the reader saves, in any language

An HTML comment right before a block changes how it is run: `<!-- needs: WHY -->` does not run it (its commands are only
parsed), `<!-- exits: N -->` expects this exit code, `<!-- killed: N -->` kills its command when its progress bar has
moved N times. A comment that begins with a line `<!-- setup` holds commands that a reader does not need.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
BLOCK = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
SETUP = re.compile(r"^<!-- setup\n(?P<text>.*?)^-->$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (needs|exits|killed): ([^\n]+?) -->\n")
MARKS = re.compile(rf"(?:{MARK.pattern})*\Z")
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
    for match in sorted([*found, *SETUP.finditer(page)], key=lambda match: match.start()):
        line = page[: match.start()].count("\n") + 1
        if match.re is SETUP:
            yield Block("bash", None, match["text"], line)
            continue
        language, title, text = match.group("language", "title", "text")
        assert title or language in RUN, f"line {line}: a block of {language} needs a title"
        above = MARKS.search(page, 0, match.start())
        marks = dict(MARK.findall(above.group() if above else ""))
        yield Block(
            language=language,
            title=title,
            text=text,
            line=line,
            needs=marks.get("needs"),
            exits=int(marks.get("exits", 0)),
            killed=int(marks["killed"]) if "killed" in marks else None,
        )


def is_shown(expected: str, printed: str) -> bool:
    """Whether a block of text is part of what was printed; `...` stands for anything, and any blanks for any others."""
    pattern = re.escape(" ".join(expected.split()))
    pattern = pattern.replace(r"\ \.\.\.\ ", "(?: | .*? )").replace(r"\.\.\.", ".*?")
    return re.search(pattern, " ".join(printed.split())) is not None

"""Escaping untrusted text for Markdown: it renders as plain text, never as markup."""

import html
import re
import unicodedata

_MARKUP = re.compile(r"[\\`*_~\[\]#|$^={}@]")
"""Characters with a meaning inside a line in CommonMark, GitHub's tables and common extensions, except HTML."""
_JOINERS = "\u200c\u200d"
"""Formatting characters that some scripts need for spelling."""
_LINKS = re.compile(r"(?i)(?<=[a-z])(:)(?=//)|\b(?<=www)(\.)")
"""Text that renderers turn into links: `https://...` and `www. ...`."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/+,()-]*")


def one_line(text: str | None) -> str:
    """Free text as one line without control and formatting characters (newlines, escapes, changes of direction)."""
    return " ".join("".join(map(_shown, text or "")).split())


def markdown_text(text: str | None) -> str:
    """Free text as one line of Markdown that renders as exactly this text in headings, paragraphs and tables."""
    escaped = html.escape(_MARKUP.sub(lambda found: f"\\{found[0]}", one_line(text)), quote=False)
    return _LINKS.sub(lambda found: f"\\{found[0]}", escaped)


def markdown_code(text: str | None) -> str:
    """A name in backticks, or as escaped text if it has characters that could end the code span."""
    line = one_line(text)
    return f"`{line}`" if _PLAIN.fullmatch(line) else markdown_text(line)


def _shown(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    return "" if category == "Cs" or (category == "Cf" and char not in _JOINERS) else char

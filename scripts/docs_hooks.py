"""Hooks of mkdocs: links that leave docs/ become plain text, and no page loads anything from a server."""

import logging
import re
from typing import Any

_LEAVES_DOCS = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")
_LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=\"?(https?:[^\"\s>]+)|<link(?![^>]*canonical)[^>]*\shref=\"?(https?:[^\"\s>]+)"
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Keep only the text of links to other files of the repository, which the site lacks."""
    return _LEAVES_DOCS.sub(r"\1", markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn of scripts, styles, fonts and images from servers; `--strict` makes an error of it."""
    for script, style in _LOADED.findall(output):
        logging.getLogger("mkdocs.hooks").warning("%s loads %s", page.file.src_uri, script or style)
    return output

"""A hook of mkdocs: links from docs/ to other files of the repository become plain text, since the site lacks them."""

import re
from typing import Any

LINK = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Keep the text of every link that leaves docs/."""
    return LINK.sub(r"\1", markdown)

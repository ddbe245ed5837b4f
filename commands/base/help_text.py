"""Help texts in which no command, option or path is wrapped, and lists of commands with complete descriptions."""

import re
from typing import Any, Final

_JOINED: Final[dict[str, str]] = {" ": "\ue000", "-": "\ue001"}
"""Private characters for a space and a hyphen at which a line must not end."""
_WHOLE: Final = re.compile(r"`[^`]+`|\S+-\S+")
"""A command, and any word with a hyphen, such as an option or hf-hub:ID."""


class WholeHelp:
    """A command or group whose help can be copied line by line."""

    def get_help(self, ctx: Any) -> Any:
        ctx.formatter_class = _without_breaks(ctx.formatter_class)
        text = super().get_help(ctx)  # type: ignore[misc]
        for character, joined in _JOINED.items():
            text = text.replace(joined, character)
        return text

    def get_short_help_str(self, limit: int = 0) -> Any:
        return super().get_short_help_str(limit=1000)  # type: ignore[misc]


def _without_breaks(formatter: Any) -> Any:
    class WholeWords(formatter):  # type: ignore[misc]
        def write_text(self, text: str) -> None:
            super().write_text(_joined(text))

        def write_dl(self, rows: Any, *arguments: Any, **options: Any) -> None:
            super().write_dl([(first, _joined(second)) for first, second in rows], *arguments, **options)

    return WholeWords


def _joined(text: str) -> str:
    return _WHOLE.sub(lambda found: found[0].replace(" ", _JOINED[" "]).replace("-", _JOINED["-"]), text)

"""Makes text from data safe to print: control characters become visible, and secrets in URLs are masked.

Every package may import this module. Titles, file names, answers and server messages are untrusted, and a terminal
interprets the control characters in them.
"""

import io
import os
import re
import shlex
import sys
import unicodedata
from typing import Any, Final

_LAYOUT: Final = "\n\t"
"""Control characters that only lay out text; messages of several lines keep them."""
_JOINERS: Final = "\u00ad\u200c\u200d"
"""Soft hyphen and joiners: part of words in Persian and Indic scripts, and of emoji."""
_MARKS: Final = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
"""Format characters that are visible signs of Arabic, Syriac and Kaithi."""
_HIDDEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories: controls (C0, C1), formats (bidirectional overrides, tags), surrogates, line separators."""

_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]*:/+"
_USER: Final = re.compile(
    rf"({_SCHEME})(?:[^\s/?#@:]*:(?!\d*(?:[/?#\s]|$))[^\s'\"<>]*@"  # a password, which may contain any character
    r"|[^\s/?#@]*@(?:[^\s/?#@]*@)*)"  # a user before the first slash; hf://datasets/lab/name@revision has none
)
_QUERY: Final = re.compile(rf"({_SCHEME}[^\s?'\"<>]*)\?[^\s'\"<>]+")
_NAMED: Final = re.compile(
    r"(?i)(?<![a-z0-9])((?:x-(?:amz|goog)-)?(?:signature|credential|security-token)|sig|[a-z_-]*token|"
    r"[a-z_-]*api[_-]?key|awsaccesskeyid|password|passwd|pwd|[a-z_-]*secret(?:[_-]?access)?(?:[_-]?key)?)"
    r"=(['\"]?)(?![\s.])[^\s&;,'\"<>]+"
)
_HEADER: Final = re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:basic|bearer)\s+)?)[^\s'\",]+")
HIDDEN: Final = "***"

_LOOKS_LIKE_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|[^/\s]+::.*:/|(?:s3|gs|hf|https?):(?!/)", re.IGNORECASE)
"""A scheme of two or more letters with a slash (a path makes s3:/bucket of s3://bucket), a chain, or a usual scheme."""


def is_url(location: str) -> bool:
    """Whether `location` is a URL, or was meant as one."""
    return _LOOKS_LIKE_URL.match(location) is not None


def visible(text: str, *, lines: bool = False) -> str:
    r"""Replace every control, override and invisible character by its escape, such as \x1b or \u202e.

    With `lines`, line feeds and tabs are kept; without, the result is one line.
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_plain(letter, lines) else _escape(letter) for letter in text)


def without_secrets(text: str) -> str:
    """Replace user names, passwords, queries and signatures in URLs by ***."""
    if not any(sign in text for sign in ("=", ":/", "uthorization", "UTHORIZATION")):
        return text
    text = _QUERY.sub(rf"\1?{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", text))
    return _HEADER.sub(rf"\1{HIDDEN}", _NAMED.sub(rf"\1=\2{HIDDEN}", text))


def shown(text: str, *, lines: bool = False) -> str:
    """Text to print: secrets masked, control characters visible."""
    return visible(without_secrets(text), lines=lines)


def message(text: str) -> str:
    """`shown` for a message; lines after the first are indented, so that data cannot imitate a line of medalign's."""
    return shown(text, lines=True).replace("\n", "\n  ")


def as_typed(location: str | os.PathLike[str]) -> str:
    """A path, URL or name as it is typed in a shell command: quoted if needed, and never like an option.

    >>> print(as_typed("a b"), as_typed("-x.yaml"), as_typed("s3://bucket/a.zarr"))
    'a b' ./-x.yaml s3://bucket/a.zarr
    """
    text = os.fspath(location)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


_TERM_GAP: Final = re.compile(r"(?<=\d)\s(?=%)|\s(?=\|\| ?\S)|(?<=\|\|)\s")


def with_terms_joined(text: str, joint: str = "\N{NO-BREAK SPACE}") -> str:
    """Text in which no line can end between a number and its percent sign, or within a divergence.

    >>> with_terms_joined("95 % of 5 cells, KL(p || q)", "_")
    '95_% of 5 cells, KL(p_||_q)'
    """
    return _TERM_GAP.sub(joint, text)


def counted(number: int, one: str, several: str | None = None) -> str:
    """`1 problem`, `1,000 problems`; `several` is the plural if it is not formed by adding an s."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def decimal_text(value: float, places: int, *, signed: bool = False) -> str:
    """A number with fixed places, and with its sign if `signed`; what rounds to zero has no sign.

    >>> decimal_text(-0.0004, 3), decimal_text(0.0004, 3, signed=True), decimal_text(0.25, 2, signed=True)
    ('0.000', '0.000', '+0.25')
    """
    text = f"{value:{'+' if signed else ''}.{places}f}"
    return text if text.strip("+-0.") else text.lstrip("+-")


def signed_text(value: float, places: int) -> str:
    """A change with its sign: `decimal_text` of a difference."""
    return decimal_text(value, places, signed=True)


_WEIGHTS_ONLY: Final = re.compile(r"weights.only", re.IGNORECASE)
_PLAIN_TYPES: Final = {"dict": "an object", "list": "a list", "str": "text", "int": "a number", "float": "a number"}


def quoted_error(error: BaseException, longest: int = 200) -> str:
    """Another library's error as part of a sentence: one line, without its final period and without unsafe advice.

    >>> quoted_error(ValueError("no such unit.")), quoted_error(FileNotFoundError(2, "No such file", "x/y"))
    ('no such unit', 'x/y: No such file')
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if isinstance(error.filename, str) else error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, KeyError) or not text:
        text = f"{type(error).__name__} {text}".strip()
    elif isinstance(error, AttributeError | TypeError):
        text = f"its content is not as expected ({text})"
    elif "int_max_str_digits" in text:
        text = "an integer has too many digits"
    elif _WEIGHTS_ONLY.search(text):  # torch explains how to run code from the file
        text = "it contains more than tensors and plain values, or is damaged"
    text = text.rstrip(". ")
    return text if len(text) <= longest else f"{text[:longest]}..."


def json_kind(value: object) -> str:
    """The kind of a value from JSON or YAML with its article, for a message.

    >>> json_kind({}), json_kind(3), json_kind(None)
    ('an object', 'a number', 'null')
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else "a boolean"
    return _PLAIN_TYPES.get(type(value).__name__, f"of type {type(value).__name__}")


def size_text(number: int) -> str:
    """An amount of data or memory, in binary units with one decimal; below 1 KiB in bytes.

    >>> size_text(1000), size_text(2048), size_text(279_575_920), size_text(64 * 2**20)
    ('1,000 bytes', '2 KiB', '266.6 MiB', '64 MiB')
    """
    if number < 1024:
        return counted(number, "byte")
    amount, unit = number / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if round(amount, 1) < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:,.1f}".removesuffix(".0") + f" {unit}"


class SafeStream:
    """A text stream that passes all output through `shown`; terminal control sequences go to `unfiltered`.

    A carriage return before printable text is kept, because other libraries draw their progress bars with it.
    """

    def __init__(self, stream: Any) -> None:
        self.unfiltered = stream
        self.outputs = 0
        """Number of times that something was printed, so that an error knows whether there is a report before it."""

    def bypassed(self) -> Any:
        """The stream itself, to print text that is safe already."""
        self.outputs += 1
        return self.unfiltered

    def write(self, text: str) -> int:
        self.outputs += 1
        is_bar = text.startswith("\r") and text[1:].isprintable()
        self.unfiltered.write("\r" + without_secrets(text[1:]) if is_bar else shown(text, lines=True))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unfiltered, name)


def protect_streams() -> None:
    """Pass everything that this process prints from now on, including warnings and tracebacks, through `shown`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, SafeStream):
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")  # what ASCII or Latin-1 lacks
            setattr(sys, name, SafeStream(stream))


def _is_plain(letter: str, lines: bool) -> bool:
    if unicodedata.category(letter) not in _HIDDEN:
        return True
    return letter in _JOINERS or letter in _MARKS or (lines and letter in _LAYOUT)


def _escape(letter: str) -> str:
    code = ord(letter)
    if letter in "\n\r\t":
        return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}[letter]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

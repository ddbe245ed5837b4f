"""Lists and objects written as text: JSON, or Python's repr, which pandas writes into CSV cells."""

import ast
import io
import json
import re
import tokenize
import warnings
from itertools import pairwise
from typing import Any

from ..json_faults import ObjectHook, find_fault

_QUOTED_START = re.compile(r"""^[\[({]\s*(["'\])}]|None\b|nan\b)""")


class UnclearValue(ValueError):
    """A value is ambiguous or cannot be interpreted; the message says why."""


class UnclearText(UnclearValue):
    """A text begins like a list or an object but is neither; the message follows the name of its column."""


def starts_with_quoted_item(written: str) -> bool:
    """Whether a text begins like a list or object of texts; `[1] scan.png` does not."""
    return _QUOTED_START.match(written) is not None


def parse_structure(written: str) -> list[Any] | dict[Any, Any]:
    """Parse a list or an object in JSON or Python notation; only literals are evaluated.

    Raises:
        UnclearText: It is neither.
    """
    for parse in (_parse_json, _parse_python):
        try:
            value = parse(written)
        except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
            continue
        value = list(value) if isinstance(value, tuple) else value
        if not isinstance(value, list | dict):
            continue
        if (fault := find_fault(value)) is not None:
            raise UnclearText(f"cannot be parsed: {fault}")
        return value
    kind, example = ("an object", '{"A": "yes", "B": "no"}') if written[0] == "{" else ("a list", '["yes", "no"]')
    shown = written if len(written) <= 60 else f"{written[:60]}..."
    raise UnclearText(f"begins like {kind} but is not one ({shown}): write it as JSON, such as {example}")


def _parse_json(written: str) -> Any:
    return json.loads(written, object_pairs_hook=ObjectHook())


class _MissingValues(ast.NodeTransformer):
    """Replaces `nan`, which pandas prints for a missing value, by `None`."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(None), node) if node.id == "nan" else node


def _parse_python(written: str) -> Any:
    """A Python literal. Adjacent strings without a comma, as NumPy prints them, would be joined and are an error."""
    tokens = [token.type for token in tokenize.generate_tokens(io.StringIO(written).readline)]
    kept = [kind for kind in tokens if kind not in (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT)]
    if (tokenize.STRING, tokenize.STRING) in pairwise(kept):
        raise ValueError("two strings without a comma between them")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about backslashes in strings
        tree = ast.parse(written, mode="eval")
        return ast.literal_eval(_MissingValues().visit(tree))

"""Lists and objects that were written as text: JSON, or what Python prints, which pandas writes into a CSV cell."""

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
    """A value can be read in more than one way, or in none; the message says why."""


class UnclearText(UnclearValue):
    """A text begins like a list or an object and is none; the message goes on after the name of its column."""


def starts_with_quoted_item(written: str) -> bool:
    """Whether a text begins as lists and objects of texts do; `[1] scan.png` does not."""
    return _QUOTED_START.match(written) is not None


def parse_structure(written: str) -> list[Any] | dict[Any, Any]:
    """A list or an object from its JSON or its Python notation; nothing is evaluated but literals.

    Raises:
        UnclearText: it is neither.
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
            raise UnclearText(f"is written so that {fault}")
        return value
    kind, example = ("an object", '{"A": "yes", "B": "no"}') if written[0] == "{" else ("a list", '["yes", "no"]')
    shown = written if len(written) <= 60 else f"{written[:60]}..."
    raise UnclearText(f"begins like {kind} and is none ({shown}): write it as JSON, such as {example}")


def _parse_json(written: str) -> Any:
    return json.loads(written, object_pairs_hook=ObjectHook())


class _MissingValues(ast.NodeTransformer):
    """`nan`, which pandas prints for a missing value, as `None`."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(None), node) if node.id == "nan" else node


def _parse_python(written: str) -> Any:
    """A Python literal. Adjacent texts without a comma, as NumPy prints them, would become one and are an error."""
    tokens = [token.type for token in tokenize.generate_tokens(io.StringIO(written).readline)]
    kept = [kind for kind in tokens if kind not in (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT)]
    if (tokenize.STRING, tokenize.STRING) in pairwise(kept):
        raise ValueError("two texts without a comma between them")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of backslashes in texts
        tree = ast.parse(written, mode="eval")
        return ast.literal_eval(_MissingValues().visit(tree))

"""The list of decoding methods. It does not load them, because they import torch, which takes seconds."""

import json
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from ..row_output import Rows
from ..terminal import print_json, show_rows

DESCRIPTIONS: Final = Path(__file__).with_name("decodings.json")
"""What `describe_decodings` returns for medalign's own methods; `make decodings` writes it."""
ENTRY_POINTS: Final = "medalign.decodings"
"""As in student/decoding/method_registry.py, which imports torch."""


def list_decodings() -> dict[str, dict[str, Any]]:
    """Every decoding method by name, as `medalign student decodings --json` prints it.

    Imports the methods only if torch is already loaded or an installed package adds one.
    """
    described: dict[str, dict[str, Any]] = json.loads(DESCRIPTIONS.read_text(encoding="utf-8"))
    if "torch" in sys.modules or any(entry.name not in described for entry in entry_points(group=ENTRY_POINTS)):
        from .decoding_choice import describe_decodings

        return describe_decodings()
    return described


def default_settings(described: Mapping[str, Any]) -> list[str]:
    """The settings of a described method as KEY=VALUE, with their defaults."""
    settings = described["settings"].items()
    return [f"{key}={json.dumps(setting['default'], separators=(',', ':'))}" for key, setting in settings]


def decoding_rows(methods: Mapping[str, Any]) -> Rows:
    """One row per described method; its settings are a list."""
    rows = [(name, method["formula"], default_settings(method), method["paper"]) for name, method in methods.items()]
    return Rows(("name", "formula", "settings", "paper"), rows)


def show_decodings(methods: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the described methods as one JSON object, or as a table."""
    if as_json:
        print_json(methods)
        return
    rows = [
        (name, formula, "\n".join(settings), paper) for name, formula, settings, paper in decoding_rows(methods).rows
    ]
    show_rows("decodings", ("--decode", "method", "--set decode.", "paper"), rows, as_json=False)

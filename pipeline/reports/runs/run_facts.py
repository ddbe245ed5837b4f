"""What a run recorded about its student and conditions, as facts of its page."""

from collections.abc import Mapping
from typing import Any, Final

_DIGITS: Final = 12
"""Shown digits of a fingerprint."""


def student_name(run: Mapping[str, Any]) -> str:
    """The student of a run, as in a title."""
    return f"{run['adapter']} on {run['base']}" if run.get("adapter") else str(run["base"])


def run_facts(run: Mapping[str, Any], conditions: Mapping[str, Any]) -> dict[str, object]:
    """Facts from run.json and the conditions of the results; what was not recorded is left out."""
    prints = {
        name.replace("_", " "): run[name][:_DIGITS] for name in ("base_fingerprint", "adapter_fingerprint") if run[name]
    }
    versions = conditions.get("versions") or {}
    facts: dict[str, object | None] = {
        "base": run["base"],
        "adapter": run["adapter"] or "none",
        **prints,
        "prompt template": run["template"],
        "precision": run["dtype"],
        "LoRA": run.get("lora"),
        "splits": ", ".join(run["splits"]),
        "questions": run["questions"],
        "batch size": run.get("batch_size"),
        "maximum answer length (tokens)": (run.get("decoding") or {}).get("max_new_tokens"),
        "devices": ", ".join(conditions.get("devices") or ()) or None,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or None,
        "medalign": run["medalign"],
    }
    return {name: value for name, value in facts.items() if value is not None}

"""The conditions of a run's results: versions must be equal, and other differences are reported."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....errors import InputError
from .environment import code_versions, differing

LEAST_KEPT = 0.95
"""Fraction of the LoRA update that merging should keep."""


def check_conditions(found: Mapping[Path, Mapping[str, Any]], *, answering: bool) -> None:
    """Check that all files of a run, and this process if it adds to them, have the same versions.

    Raises:
        InputError: They do not; differences are listed with both values.
    """
    versions = {str(path): said["versions"] for path, said in found.items() if "versions" in said}
    if answering:
        versions["this run"] = code_versions()
    if not versions:
        return
    (first, expected), *others = versions.items()
    for name, other in others:
        wrong = differing(expected, other)
        if wrong:
            raise InputError(
                f"{first} and {name} have different versions: {wrong}. All answers of a run must come from one "
                "environment: run the other tasks again in the same environment, or pass another --out"
            )


def joined_conditions(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The joined conditions of all files, for metrics.json."""
    said = [values for values in found if values]
    if not said:
        return {}
    kept = [values["lora_kept"] for values in said if values.get("lora_kept") is not None]
    return {
        "versions": dict(said[0]["versions"]),
        "devices": sorted({values["device"] for values in said}),
        "lora_kept": min(kept) if kept else None,
    }


def condition_warnings(conditions: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """Warnings about the results; `run` is the content of run.json."""
    lora_kept = conditions.get("lora_kept")
    return [*_devices(conditions.get("devices") or ()), *_kept(lora_kept, run.get("dtype")), *_base(run)]


def _devices(devices: Sequence[str]) -> list[str]:
    if len(devices) < 2:
        return []
    return [
        f"the answers come from different devices ({', '.join(devices)}), which round differently: dividing the work "
        "differently could give different answers"
    ]


def _kept(kept: float | None, dtype: str | None) -> list[str]:
    if kept is None or kept >= LEAST_KEPT:
        return []
    return [
        f"merging LoRA into {dtype} weights kept only {kept:.0%} of its update; the rest was lost by rounding. To keep "
        "all of it, pass --keep-lora-apart (keep_lora_apart of a comparison's student) or --dtype float32"
    ]


def _base(run: Mapping[str, Any]) -> list[str]:
    """A warning if an adapter was trained on a quantized base but is evaluated on another one."""
    kind = (run.get("adapter_settings") or {}).get("quantisation")
    if kind is None:
        return []
    return [
        f"the adapter was trained on a {kind.removesuffix('bit')}-bit base (QLoRA), but here the base is not "
        f"quantized but {run.get('dtype')}, and LoRA is {run.get('lora')}"
    ]

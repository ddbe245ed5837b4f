"""The conditions under which a run's results came about: they must share versions, and what differs else is told."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....errors import InputError
from .environment import code_versions, differing

LEAST_KEPT = 0.95
"""Share of LoRA's update that merging should keep."""


def check_conditions(found: Mapping[Path, Mapping[str, Any]], *, answering: bool) -> None:
    """Check that all files of a run, and this process if it is to add to them, have the same versions.

    Raises:
        InputError: they do not; what differs is listed with both values.
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
                f"{first} and {name} are of different versions: {wrong}. All answers of a run come from one "
                "environment: repeat the other tasks in the same one, or give another --out"
            )


def joined_conditions(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What metrics.json says of the conditions of all files together."""
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
    """Lines on what a reader of the numbers has to know; `run` is what run.json says."""
    lora_kept = conditions.get("lora_kept")
    return [*_devices(conditions.get("devices") or ()), *_kept(lora_kept, run.get("dtype")), *_base(run)]


def _devices(devices: Sequence[str]) -> list[str]:
    if len(devices) < 2:
        return []
    return [
        f"the answers come from different devices ({', '.join(devices)}), whose rounding differs: another division of "
        "the work could give other answers"
    ]


def _kept(kept: float | None, dtype: str | None) -> list[str]:
    if kept is None or kept >= LEAST_KEPT:
        return []
    return [
        f"merging LoRA into {dtype} weights kept {kept:.0%} of its update, the rest was rounded away: evaluate with "
        "--keep-lora-apart (keep_lora_apart of a comparison's student) or with --dtype float32 to have all of it"
    ]


def _base(run: Mapping[str, Any]) -> list[str]:
    """Where an adapter was trained on a base of other values than those it is evaluated on."""
    kind = (run.get("adapter_settings") or {}).get("quantisation")
    if kind is None:
        return []
    return [
        f"the adapter was trained on its base in {kind.removesuffix('bit')} bits (QLoRA); here the base is not "
        f"quantized but {run.get('dtype')}, and LoRA is {run.get('lora')}"
    ]

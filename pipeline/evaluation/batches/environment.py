"""The environment of a run: versions of the code, and the device."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .... import __version__

ROOT = Path(__file__).parents[3]
ROOMS = ("student", "teacher_cache", "pipeline")
PACKAGES = ("torch", "transformers", "peft")


@cache
def code_versions() -> Mapping[str, str]:
    """Versions that must be equal for all answers of a run; `code` is a digest of medalign's sources."""
    digest = hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\n".encode() + path.read_bytes())
    return {"medalign": __version__, "code": digest.hexdigest()[:12], **{name: version(name) for name in PACKAGES}}


def device_name(device: torch.device) -> str:
    """The name of a device: the model of a GPU, else its type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The versions that differ, with both values; empty if none does."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name)} and {other.get(name)}" for name in names)

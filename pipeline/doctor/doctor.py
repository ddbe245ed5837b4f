"""`medalign doctor`: report what this machine has, what is missing, and how to fix it."""

import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import Version

from ... import __version__
from ...teacher_cache.workers.cores import usable_cores
from .requirements import NEEDED_PACKAGES, OPTIONAL_PARTS, WEIGHTS, OptionalPart, Weights, find_weights

GIB = 2**30
STORE_BYTES_PER_IMAGE = 576 * (1024 * 2 + 4)
"""One row of a default store: E_v of 24x24 patches of ViT-L/14 in float16, E_a in float32."""
WEIGHTS_VARIABLE = "MEDALIGN_WEIGHTS"
TRIED_VERSIONS = Path(__file__).parent / "tried_versions.json"
"""Newest tested version of each required package."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device that models can run on."""

    name: str
    """Value for `--device`."""
    title: str
    memory_gib: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """Free space on one disk."""

    place: str
    path: str
    free_gib: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFound:
    """An optional package, installed or not."""

    part: OptionalPart
    version: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsFound:
    """Upstream weights, found or not."""

    weights: Weights
    path: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorReport:
    """Everything found; `advice` says how to add what is missing."""

    medalign: str
    python: str
    platform: str
    packages: dict[str, str | None]
    """Required packages and their versions; `None` if missing."""
    cores: int
    memory_gib: float | None
    devices: tuple[Device, ...]
    disks: tuple[Disk, ...]
    parts: tuple[PartFound, ...]
    weights_folder: str | None
    weights: tuple[WeightsFound, ...]
    advice: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """The report as values for JSON."""
        return asdict(self)


def examine(environment: Mapping[str, str] = os.environ) -> DoctorReport:
    """Inspect this machine without changing or downloading anything."""
    packages = {name: package_version(name) for name in NEEDED_PACKAGES}
    cache = hub_cache(environment)
    folder = environment.get(WEIGHTS_VARIABLE)
    weights = tuple(
        WeightsFound(weights=kind, path=find_weights(kind, Path(folder) if folder else None, cache)) for kind in WEIGHTS
    )
    devices = _devices()
    disks = (_disk("here", Path.cwd()), _disk("hugging face cache", cache))
    return DoctorReport(
        medalign=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=packages,
        cores=usable_cores(),
        memory_gib=_memory_gib(),
        devices=devices,
        disks=disks,
        parts=tuple(PartFound(part=part, version=package_version(part.package)) for part in OPTIONAL_PARTS),
        weights_folder=folder,
        weights=weights,
        advice=tuple(_advice(packages, devices, disks[0], weights, folder)),
    )


def package_version(name: str) -> str | None:
    """The installed version of a package, read from its metadata without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def untried_versions(packages: Mapping[str, str | None]) -> dict[str, tuple[str, str]]:
    """Packages newer than any tested version: name -> (installed, newest tested)."""
    tried: dict[str, str] = json.loads(TRIED_VERSIONS.read_text())
    pairs = {
        name: (version, tried[normalized])
        for name, version in packages.items()
        if version is not None and (normalized := name.lower().replace("_", "-")) in tried
    }
    return {
        name: (installed, newest)
        for name, (installed, newest) in pairs.items()
        if Version(Version(installed).public) > Version(newest)
    }


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps downloads: HF_HUB_CACHE, HF_HOME/hub, or ~/.cache/huggingface/hub."""
    if "HF_HUB_CACHE" in environment:
        return Path(environment["HF_HUB_CACHE"])
    home = environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(home) / "hub"


def _devices() -> tuple[Device, ...]:
    """Accelerators first, the CPU last; empty if torch cannot be imported."""
    try:
        import torch
    except ImportError:
        return ()
    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = round(properties.total_memory / GIB, 1)
            found.append(Device(name=f"cuda:{index}", title=properties.name, memory_gib=memory))
    if torch.backends.mps.is_available():
        found.append(Device(name="mps", title="Apple GPU", memory_gib=None))
    title = f"{platform.machine()}, {usable_cores()} cores"
    return (*found, Device(name="cpu", title=title, memory_gib=_memory_gib()))


def _memory_gib() -> float | None:
    """Total memory of this machine; `None` if unknown."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _disk(place: str, path: Path) -> Disk:
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return Disk(place=place, path=str(path), free_gib=round(shutil.disk_usage(existing).free / GIB, 1))


def _advice(
    packages: Mapping[str, str | None],
    devices: tuple[Device, ...],
    disk: Disk,
    weights: tuple[WeightsFound, ...],
    folder: str | None,
) -> list[str]:
    advice = []
    missing = [name for name, version in packages.items() if version is None]
    if missing:
        advice.append(f"required packages are missing: pip install {' '.join(missing)}")
    untried = untried_versions(packages)
    if untried:
        listed = ", ".join(
            f"{name} {installed} (tested up to {newest})" for name, (installed, newest) in untried.items()
        )
        tried = " ".join(f"'{name}<={newest}'" for name, (_, newest) in untried.items())
        advice.append(
            f"newer than the versions that medalign was tested with: {listed}. In case of errors: pip install {tried}"
        )
    if all(device.name == "cpu" for device in devices):
        advice.append(
            "no CUDA or MPS device: the CPU is enough for the demo, small teachers and small students, but not for "
            "training a 7B student"
        )
    images = int(disk.free_gib * GIB / STORE_BYTES_PER_IMAGE)
    advice.append(
        f"the free disk space is enough for a default store of about {images:,} images (24x24 patches of ViT-L/14)"
    )
    if folder is None:
        advice.append(f"set {WEIGHTS_VARIABLE} to the folder of local weights")
    elif not Path(folder).is_dir():
        advice.append(f"{WEIGHTS_VARIABLE} is {folder}, which is not a folder")
    absent = [found.weights.name for found in weights if found.path is None]
    if absent:
        advice.append(f"not found: {', '.join(absent)}; the demo needs none of them; the table shows where to get each")
    return advice


def show_doctor(report: DoctorReport, *, as_json: bool) -> None:
    """Print a report as one JSON object, or as tables and advice."""
    from ..terminal import show_rows, show_summary

    if as_json:
        show_summary("doctor", report.summary(), as_json=True)
        return
    machine = {
        "medalign": report.medalign,
        "python": report.python,
        "platform": report.platform,
        "cores": report.cores,
        "memory_gib": report.memory_gib,
        **{f"free_gib_{disk.place}": f"{disk.free_gib:g} ({disk.path})" for disk in report.disks},
    }
    show_summary("machine", machine, as_json=False)
    show_rows(
        "devices", ("--device", "what", "GiB"), [(d.name, d.title, d.memory_gib) for d in report.devices], as_json=False
    )
    show_rows(
        "packages", ("needed", "version"), [(n, v or "MISSING") for n, v in report.packages.items()], as_json=False
    )
    parts = [(p.part.package, p.version or "-", p.part.purpose, p.part.how) for p in report.parts]
    show_rows("optional packages", ("package", "version", "purpose", "how to install"), parts, as_json=False)
    rows = [(w.weights.name, w.path or "-", w.weights.purpose, w.weights.source) for w in report.weights]
    show_rows("local weights", ("weights", "path", "purpose", "where to get them"), rows, as_json=False)
    for line in report.advice:
        print(f"- {line}")

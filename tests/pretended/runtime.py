"""Builds the pretended CUDA runtime, and runs checks in a process that has it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def missing() -> str | None:
    """Why there can be no pretended GPU here; None: there can be one."""
    if sys.platform != "linux":
        return "the pretended CUDA runtime is preloaded as Linux does it"
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if _compiler() is None:
        return "no C compiler for the pretended CUDA runtime"
    return None


def build(folder: Path) -> dict[str, str]:
    """Compile the runtime into a folder; the environment of processes that have it."""
    compiler = _compiler()
    assert compiler is not None
    common = [compiler, "-w", "-shared", "-fPIC", "-O1", str(HERE / "cuda.c")]
    runtime, driver = folder / "libpretendedcudart.so", folder / "libcuda.so.1"
    subprocess.run([*common, "-o", str(runtime)], check=True)
    subprocess.run([*common, "-DDRIVER", "-Wl,-soname,libcuda.so.1", "-o", str(driver)], check=True)
    return os.environ | {
        "LD_PRELOAD": str(runtime),
        "LD_LIBRARY_PATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE.parent),
    }


def run_checks(environment: dict[str, str], checks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each check printed, by its name."""
    command = [sys.executable, "-W", "ignore", str(HERE / "checks.py"), *checks]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    assert done.returncode == 0, done.stderr[-4000:]
    return {line["check"]: line for line in lines}


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")

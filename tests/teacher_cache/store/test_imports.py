"""Modules of the teacher cache that must not load heavy packages."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("medalign.teacher_cache.teachers", ["torch", "open_clip", "timm", "zarr"]),
        ("medalign.teacher_cache.workers.decode_pool", ["torch", "open_clip", "timm", "zarr", "pydantic"]),
        ("medalign.teacher_cache.store", ["open_clip", "timm", "zarr", "medalign.teacher_cache.teachers"]),
    ],
)
def test_light_modules_load_no_heavy_packages(module, forbidden):
    code = f"import sys, {module}; print([name for name in {forbidden} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

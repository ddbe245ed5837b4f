"""What an installed copy needs is declared."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_subpackage_is_packaged():
    found = {
        ".".join(["medalign", *path.parent.relative_to(ROOT).parts])
        for room in ("commands", "pipeline", "student", "teacher_cache")
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"medalign"}


def test_version_is_one():
    import medalign

    assert medalign.__version__ == PROJECT["project"]["version"]
    assert f"version: {medalign.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_no_dependency_is_pinned_exactly():
    assert not [name for name in PROJECT["project"]["dependencies"] if "==" in name]

"""What an installed copy needs is declared."""

import json
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_subpackage_is_packaged():
    found = {
        ".".join(["medalign", *path.parent.relative_to(ROOT).parts])
        for room in ("api", "commands", "pipeline", "student", "teacher_cache")
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"medalign"}


def test_version_is_one():
    import medalign

    assert medalign.__version__ == PROJECT["project"]["version"]
    assert f"version: {medalign.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_no_dependency_is_pinned_exactly():
    assert not [name for name in PROJECT["project"]["dependencies"] if "==" in name]


def locked_lines() -> list[str]:
    text = (ROOT / "constraints.txt").read_text()
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_lock_has_exact_versions_and_no_address():
    for line in locked_lines():
        requirement = Requirement(line)
        assert [version.operator for version in requirement.specifier] == ["=="], line
        assert requirement.url is None, line
        assert not requirement.extras, line  # pip refuses extras in constraints
    assert "://" not in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_lock_has_every_direct_dependency_once_for_each_python(python, machine):
    environment = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux",
                   "platform_machine": machine, "platform_system": "Linux", "platform_python_implementation": "CPython",
                   "implementation_name": "cpython", "os_name": "posix", "extra": ""}  # fmt: skip
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    locked = [Requirement(line) for line in locked_lines()]
    locked = [found for found in locked if found.marker is None or found.marker.evaluate(environment)]
    versions = {canonicalize_name(found.name): next(iter(found.specifier)).version for found in locked}
    assert len(versions) == len(locked)
    for requirement in map(Requirement, wanted):
        if requirement.name != "medalign":
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_the_doctor_reads_the_newest_version_of_the_lock():
    tried = json.loads((ROOT / "pipeline" / "tried_versions.json").read_text())
    locked: dict[str, Version] = {}
    for requirement in map(Requirement, locked_lines()):
        version = Version(next(iter(requirement.specifier)).version)
        name = canonicalize_name(requirement.name)
        locked[name] = max(version, locked.get(name, version))
    assert tried == {name: str(locked[name]) for name in tried}
    direct = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    assert tried.keys() == direct

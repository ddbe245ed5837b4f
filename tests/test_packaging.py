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


def test_classifiers_say_what_the_project_says_elsewhere():
    project = PROJECT["project"]
    classifiers = project["classifiers"]
    assert len(set(classifiers)) == len(classifiers)
    named = [
        text.removeprefix("Programming Language :: Python :: ") for text in classifiers if ":: Python :: 3." in text
    ]
    assert project["requires-python"] == f">={named[0]}"
    assert f"Python {named[0]} to {named[-1]}" in (ROOT / "README.md").read_text()
    assert ("Typing :: Typed" in classifiers) == (ROOT / "py.typed").is_file()
    assert not [text for text in classifiers if text.startswith("License ::")]  # PEP 639: `license` alone says it


def test_urls_are_stated_elsewhere():
    """No address is made up: each one is in README.md or CITATION.cff, too."""
    texts = (ROOT / "README.md").read_text() + (ROOT / "CITATION.cff").read_text()
    urls = PROJECT["project"]["urls"]
    assert urls
    assert not [url for url in urls.values() if not url.startswith("https://") or url not in texts]


def test_configurations_and_examples_are_installed():
    """`make test-wheel` compares the whole wheel; this sees a folder that the patterns do not reach."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["medalign"]
    reached = {path for pattern in patterns for path in ROOT.glob(pattern)}
    shipped = {path for room in ("configs", "examples") for path in (ROOT / room).rglob("*") if path.is_file()}
    assert {path for path in shipped if "__pycache__" not in path.parts} <= reached


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
    tried = json.loads((ROOT / "pipeline" / "doctor" / "tried_versions.json").read_text())
    locked: dict[str, Version] = {}
    for requirement in map(Requirement, locked_lines()):
        version = Version(next(iter(requirement.specifier)).version)
        name = canonicalize_name(requirement.name)
        locked[name] = max(version, locked.get(name, version))
    assert tried == {name: str(locked[name]) for name in tried}
    direct = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    assert tried.keys() == direct

"""CONTRIBUTING, SECURITY, issue forms, hooks and the list of slow tests say what is there."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import slow_tests
from test_docs import FENCE, PAGES

ROOT = Path(__file__).parents[1]
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
MAKEFILE = (ROOT / "Makefile").read_text()
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]


def make_targets(text: str) -> set[str]:
    """Targets named in a page: `make X` between backticks, and lines of code blocks."""
    blocks = "\n".join(FENCE.findall(text))
    typed = re.findall(r"^(?:\w+=\S+ )?make ([a-z-]+)", blocks, re.MULTILINE)
    return {*typed, *re.findall(r"`(?:\w+=\S+ )?make ([a-z-]+)`", text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_make_targets_on_pages_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert make_targets(page.read_text()) <= targets


def test_make_targets_are_found_on_pages():
    assert make_targets("run `make lint`\n```\nmake test-fast  # first\nPYTHON=python3.13 make test\n```\n") == {
        "lint", "test-fast", "test",
    }  # fmt: skip
    assert len(make_targets((ROOT / "CONTRIBUTING.md").read_text())) > 6


def test_every_target_without_a_file_is_phony():
    """A file called `test` or `dist` would otherwise stop `make` from running the target."""
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_valid_and_warn_of_patient_data(path):
    """GitHub's form schema: its keys, element types, unique ids. It drops an invalid form without a message."""
    form = yaml.safe_load(path.read_text())
    assert form.keys() <= {"name", "description", "title", "labels", "assignees", "projects", "type", "body"}
    assert form["name"]
    assert form["description"]
    fields = [element for element in form["body"] if element["type"] != "markdown"]
    assert {element["type"] for element in fields} <= {"textarea", "input", "dropdown", "checkboxes", "upload"}
    ids = [element["id"] for element in fields]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", one) for one in ids)
    assert all(element["attributes"]["label"] for element in fields)
    markdown = " ".join(element["attributes"]["value"] for element in form["body"] if element["type"] == "markdown")
    assert "Do not post patient data" in markdown
    assert "medalign doctor --json" in " ".join(element["attributes"]["label"] for element in fields)
    (checks,) = (element for element in fields if element["type"] == "checkboxes")
    assert all(option["required"] for option in checks["attributes"]["options"])


def test_there_are_three_issue_forms():
    assert [path.stem for path in FORMS] == ["bug", "feature", "question"]


def test_hooks_use_the_locked_tools():
    """ruff and mypy come from .venv, so their versions are those of constraints.txt; the others are pinned."""
    hooks = {hook["id"]: hook for repo in HOOKS for hook in repo["hooks"]}
    assert {repo["repo"] for repo in HOOKS} == {"local"}
    assert hooks.keys() == {"ruff", "ruff-format", "mypy", "large-files", "private-keys"}
    for name in ("ruff", "ruff-format", "mypy"):
        assert hooks[name]["language"] == "system"
        assert hooks[name]["entry"].startswith(".venv/bin/")
    pinned = [one for hook in hooks.values() for one in hook.get("additional_dependencies", [])]
    assert pinned
    assert all("==" in one for one in pinned)


def test_security_policy_names_no_address_that_nobody_reads():
    text = (ROOT / "SECURITY.md").read_text()
    assert "private vulnerability reporting" in text
    assert "@" not in text


@cache
def functions_in(path: Path) -> set[str]:
    """Names of a file's test functions, `CLASS::FUNCTION` inside a class, without importing it."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_slow_tests_exist():
    """A test that was renamed would otherwise return to `make test-fast` without anybody noticing."""
    gone = []
    for name in sorted(slow_tests()):
        file, _, function = name.partition("::")
        path = ROOT / file
        inherited = path.is_file() and "import *" in path.read_text()
        if not path.is_file() or (function and not inherited and function not in functions_in(path)):
            gone.append(name)
    assert not gone, f"tests/slow.txt lists tests that do not exist; rename or delete the lines: {gone}"


DURATIONS = """
0.30s call     tests/a/test_one.py::test_adds[1]
0.25s call     tests/a/test_one.py::test_adds[2]
0.45s call     tests/a/test_one.py::test_quick
1.20s setup    tests/a/test_two.py::test_opens
0.01s call     tests/a/test_two.py::test_opens
0.40s setup    tests/test_three.py::TestStore::test_reads[a::b]
0.20s call     tests/test_three.py::TestStore::test_reads[a::b]
"""


def test_slow_tests_are_found_in_printed_durations():
    """0.3 + 0.25 s and 0.4 + 0.2 s are above half a second; a setup of 1.2 s makes its file slow."""
    spec = importlib.util.spec_from_file_location("slow_tests_script", ROOT / "scripts" / "slow_tests.py")
    assert spec is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.LONGEST, script.LONGEST_SETUP = 0.5, 1.0
    assert script.slow_tests(DURATIONS) == [
        "tests/a/test_one.py::test_adds",
        "tests/a/test_two.py",
        "tests/test_three.py::TestStore::test_reads",
    ]

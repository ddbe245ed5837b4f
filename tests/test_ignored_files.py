"""Nothing that README, docs, configurations and examples put into a clone can be committed by `git add .`."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_tree import COMMANDS
from test_docs import PAGES, ROOT, typed_lines

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SHIPPED = ("configs/", "docs/studies/", "examples/", "constraints.txt")
OUTSIDE = ("some/folder", "my-images")
"""What the pages write for a folder of the reader's own, wherever it is."""
WITH_PATHS = {"path", "paths", "manifest", "store"}
"""Keys of a configuration whose values are paths."""


def paths_in_command(line: str) -> Iterator[str]:
    """Every value of a command line whose parameter is a path: outputs and inputs."""
    command, name, words = COMMANDS, "", shlex.split(line)[1:]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        command = command.commands[name]
    if not name:
        return  # medalign --version
    for value in command.make_context(name, words).params.values():
        values = value if isinstance(value, list | tuple) else [value]
        yield from (str(one) for one in values if isinstance(one, Path))


def paths_in_config(value: object) -> Iterator[str]:
    """Values of the keys that name files, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in WITH_PATHS:
                yield from inner if isinstance(inner, list) else [inner]
            else:
                yield from paths_in_config(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from paths_in_config(inner)


def named_paths() -> set[str]:
    lines = [line for page in PAGES for line in typed_lines(page.read_text()) if "..." not in line]
    found = {path for line in lines for path in paths_in_command(line)}
    found |= {path for file in CONFIGS for path in paths_in_config(yaml.safe_load(file.read_text()))}
    inside = {path for path in found if not Path(path).is_absolute() and "://" not in path}
    return {path for path in inside if not path.startswith(SHIPPED + OUTSIDE)}


def ignored(paths: list[str]) -> set[str]:
    """Those that git ignores, as folders or as files in them. Nothing needs to exist."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so git has no rules to check")
    names = [name for path in paths for name in (path, f"{path}/inside")]
    result = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT, input="\n".join(names), text=True, stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    assert result.returncode in (0, 1), "git check-ignore failed"
    return {line.removesuffix("/inside") for line in result.stdout.splitlines()}


def test_paths_on_pages_and_in_configurations_are_ignored():
    paths = sorted(named_paths())
    assert len(paths) > 30
    assert {"data/vqa_rad", "runs/vqa-rad", "stores/vqa-rad-unimed-b16.zarr", "medalign-demo/student"} <= set(paths)
    not_ignored = sorted(set(paths) - ignored(paths))
    assert not not_ignored, f"add these to .gitignore: {not_ignored}"


def test_the_default_output_of_every_command_is_ignored():
    """Walks the whole tree of commands: an option `--out` with a default writes there when nobody names a folder."""

    def commands(command) -> Iterator:
        for inner in getattr(command, "commands", {}).values():
            yield from commands(inner)
        yield command

    outputs = [
        str(option.default)
        for command in commands(COMMANDS)
        for option in command.params
        if "--out" in option.opts and option.default
    ]
    assert "medalign-demo" in outputs
    assert set(outputs) == ignored(outputs)


def test_no_file_of_the_repository_is_ignored():
    """A tracked file that a rule matches would be lost by the next `git add` of a rename."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True).stdout
    assert not listed.splitlines()


@pytest.mark.parametrize("source", ["student/data/x.py", "pipeline/data/manifest.py", "student/models.py",
                                    "docs/reports.md", "configs/new.yaml", "tests/results/test_x.py"])  # fmt: skip
def test_source_files_are_not_ignored(source):
    """Rules for folders in the root say nothing of packages with the same names."""
    assert not ignored([source])

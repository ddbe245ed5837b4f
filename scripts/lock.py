"""Renew constraints.txt, the versions that `make demo` and `make test` install, and the list that `doctor` reads.

usage: python scripts/lock.py            newest versions that pyproject.toml allows -> constraints.txt
       python scripts/lock.py --lowest   lowest versions that it allows, on this Python -> standard output

uv resolves for every platform and every supported Python at once; lines that hold for some of them alone carry
environment markers. The file has versions only, no index's address and no hashes, so any pip can use it with any
mirror. Constraints given in the environment (UV_CONSTRAINT) hold here too.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
TRIED = ROOT / "pipeline" / "doctor" / "tried_versions.json"
HEADER = """\
# Versions of everything that medalign and its tests install. Made by `make lock`; do not edit.
# `make demo` and `make test` use it. By hand: pip install -c constraints.txt -e '.[dev]'
"""


def compiled(*arguments: str) -> str:
    """What `uv pip compile` resolves pyproject.toml with all its extras to."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--all-extras",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
    ]
    result = subprocess.run(
        [*command, *arguments, "pyproject.toml"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return result.stdout


def oldest_python() -> str:
    """The lowest version of Python that pyproject.toml allows, such as 3.11."""
    requires: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    return requires.removeprefix(">=")


def newest_versions(constraints: str) -> dict[str, str]:
    """Newest version of each direct dependency among the lines of a constraints file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    newest: dict[str, Version] = {}
    for line in constraints.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            name, version = canonicalize_name(requirement.name), Version(next(iter(requirement.specifier)).version)
            if name in direct:
                newest[name] = max(version, newest.get(name, version))
    return {name: str(version) for name, version in sorted(newest.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description="Renew the lock of the environment.")
    parser.add_argument("--lowest", action="store_true", help="print the lowest versions that pyproject.toml allows")
    if parser.parse_args().lowest:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.stdout.write(compiled("--resolution", "lowest-direct", "--python-version", python))
        return
    constraints = compiled("--universal", "--python-version", oldest_python(), "--upgrade")
    CONSTRAINTS.write_text(HEADER + constraints)
    TRIED.write_text(json.dumps(newest_versions(constraints), indent=2) + "\n")
    print(f"wrote {CONSTRAINTS.relative_to(ROOT)} and {TRIED.relative_to(ROOT)}; next: make test, then commit both")


if __name__ == "__main__":
    main()

"""Run by `make test-wheel`: the wheel and the sdist hold what git tracks of the package, and nothing else.

usage: python tests/check_dist.py FOLDER
"""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_INSTALLED = ("tests/", "docs/", "benchmarks/", "scripts/", ".github/", ".ci/")
ONLY_IN_SDIST = {
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "MANIFEST.in",
    "constraints.txt",
    "pyproject.toml",
}
OF_THE_REPOSITORY = {"CONTRIBUTING.md", "SECURITY.md", "Makefile", "mkdocs.yml"}
MADE_BY_SETUPTOOLS = {"PKG-INFO", "setup.cfg"}


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


def installed(names: set[str]) -> set[str]:
    """Tracked files that belong into site-packages: all but documents, tests and hidden files."""
    others = ONLY_IN_SDIST | OF_THE_REPOSITORY
    return {name for name in names if not name.startswith((*NOT_INSTALLED, ".")) and name not in others}


def compare(kind: str, found: set[str], expected: set[str]) -> None:
    missing, stray = sorted(expected - found), sorted(found - expected)
    if missing or stray:
        raise SystemExit(
            f"the {kind} lacks {missing or 'nothing'} and has, beyond what it should, {stray or 'nothing'}"
        )
    print(f"{kind}: {len(found)} files, as expected")


def check_wheel(path: Path, expected: set[str]) -> None:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    files = {name for name in names if not name.startswith(f"{info}/")}
    compare("wheel", {name.removeprefix("medalign/") for name in files}, expected)
    assert all(name.startswith("medalign/") for name in files), "something would land beside the package"
    assert f"{info}/licenses/LICENSE" in names, "the wheel has no license"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Version"] == project["version"]
    assert metadata["License-Expression"] == project["license"]
    assert metadata.get_all("Classifier") == project["classifiers"]
    assert "medalign = medalign.cli:app" in entry_points


def check_sdist(path: Path, expected: set[str]) -> None:
    with tarfile.open(path) as archive:
        inside = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    files = {name for name in inside if not name.startswith("medalign.egg-info/")}
    compare("sdist", files, expected | MADE_BY_SETUPTOOLS)


def main() -> None:
    folder, names = Path(sys.argv[1]), tracked()
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check_wheel(wheel, installed(names))
    docs = {name for name in names if name.startswith("docs/") and name.endswith(".md")}
    check_sdist(sdist, installed(names) | ONLY_IN_SDIST | docs)


if __name__ == "__main__":
    main()

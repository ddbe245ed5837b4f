"""Print how the versions installed in this environment differ from constraints.txt.

usage: python scripts/changes.py
"""

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def locked_versions() -> dict[str, str]:
    """Version of each distribution that constraints.txt gives for this Python and platform."""
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if line.strip() and not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    return {
        canonicalize_name(requirement.name): next(iter(requirement.specifier)).version
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


def main() -> None:
    locked = locked_versions()
    installed = {canonicalize_name(found.metadata["Name"]): found.version for found in metadata.distributions()}
    changes = [
        f"{name} {locked.get(name, 'not locked')} -> {version}"
        for name, version in sorted(installed.items())
        if name != "medalign" and locked.get(name) != version
    ]
    print(f"{len(changes)} of {len(installed)} distributions differ from constraints.txt:")
    print("\n".join(changes) or "none")


if __name__ == "__main__":
    main()

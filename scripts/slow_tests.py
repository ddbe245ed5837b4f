"""Write tests/slow.txt, the tests that `make test-fast` leaves out, from the times that a run of all tests printed.

usage: python -m pytest --durations=0 --durations-min=0 ... > LOG; python scripts/slow_tests.py LOG

A test function is slow if it takes LONGEST seconds or more with its fixtures, in total over all its parameters. A file
is slow as a whole if one setup in it takes LONGEST_SETUP seconds or more: tests share such a fixture, so the next test
would pay for it.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

LONGEST = 0.3
LONGEST_SETUP = 0.8
SLOW = Path(__file__).resolve().parents[1] / "tests" / "slow.txt"
HEADER = """\
# Tests that `make test-fast` leaves out: whole files, or functions in them. Made by `make slow-tests`; new lines may be
# added by hand.
"""
LINE = re.compile(r"\s*(?P<seconds>[\d.]+)s (?P<phase>call|setup|teardown)\s+(?P<file>[^:\s]+)::(?P<test>[^\[\s]+)")


def slow_tests(log: str) -> list[str]:
    """Files and functions (`FILE::FUNCTION` or `FILE::CLASS::FUNCTION`) that are slow, sorted."""
    files: set[str] = set()
    times: defaultdict[tuple[str, str], float] = defaultdict(float)
    for line in LINE.finditer(log):
        seconds = float(line["seconds"])
        times[line["file"], line["test"]] += seconds
        if line["phase"] == "setup" and seconds >= LONGEST_SETUP:
            files.add(line["file"])
    functions = {
        f"{file}::{test}" for (file, test), seconds in times.items() if seconds >= LONGEST and file not in files
    }
    return sorted(files | functions)


def main() -> None:
    names = slow_tests(Path(sys.argv[1]).read_text())
    if not names:
        raise SystemExit(f"{sys.argv[1]} has no times: run pytest with --durations=0 --durations-min=0")
    SLOW.write_text(HEADER + "\n".join(names) + "\n")
    print(f"wrote {len(names)} lines to {SLOW}")


if __name__ == "__main__":
    main()

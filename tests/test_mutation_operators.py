"""scripts/mutants.py: which changes it makes, and that each change is undone."""

import ast
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

SOURCE = '''
"""A docstring."""
LIMIT: int = 3

def f(x: "int | None", n=2):
    """Another one."""
    if x is None and not n:
        raise ValueError(f"{n + 1}")
    total = x.float()[1:] / 127
    log.note(f"{n}", 5)
    return total

class A:
    def __repr__(self):
        return "A" * 2

    def g(self, text):
        self.x = text
        for line in text:
            if line:
                continue
        return max(text) >= 0.5
'''

CHANGES = {
    "(module)": [
        ("LIMIT: int = 3", "LIMIT: int = 4"),
        ("def f(x: 'int | None', n=2):", "def f(x: 'int | None', n=3):"),
    ],
    "f": [
        ("if x is None and (not n):", "if x is None or not n:"),
        ("if x is None and (not n):", "if x is not None and (not n):"),
        ("if x is None and (not n):", "if x is None and n:"),
        ("raise ValueError(f'{n + 1}')", "pass"),
        ("total = x.float()[1:] / 127", "total = x.float()[1:] * 127"),
        ("total = x.float()[1:] / 127", "total = x[1:] / 127"),
        ("total = x.float()[1:] / 127", "total = x.float()[:] / 127"),
        ("total = x.float()[1:] / 127", "total = x.float()[2:] / 127"),
        ("total = x.float()[1:] / 127", "total = x.float()[1:] / 128"),
    ],
    "A.g": [
        ("self.x = text", "pass"),
        ("if line:", "if not line:"),
        ("continue", "break"),
        ("return max(text) >= 0.5", "return max(text) > 0.5"),
        ("return max(text) >= 0.5", "return min(text) >= 0.5"),
        ("return max(text) >= 0.5", "return max(text) >= 1.0"),
    ],
}


@pytest.fixture
def operators(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import mutation_operators

    yield mutation_operators
    del sys.modules["mutation_operators"]


def test_each_line_has_the_expected_changes(operators):
    tree = ast.parse(SOURCE)
    found = {name: [] for name in CHANGES}
    for mutant in operators.mutants("a.py", tree):
        found[mutant.function or "(module)"].append((mutant.before, mutant.after))
    assert {name: sorted(changes) for name, changes in found.items()} == {
        name: sorted(changes) for name, changes in CHANGES.items()
    }


def test_changes_are_undone(operators):
    tree = ast.parse(SOURCE)
    changed = set()
    for mutant in operators.mutants("a.py", tree):
        old = mutant.put(mutant.new)
        changed.add(ast.unparse(ast.fix_missing_locations(tree)))
        mutant.put(old)
        assert ast.unparse(tree) == ast.unparse(ast.parse(SOURCE))
    assert len(changed) == sum(map(len, CHANGES.values()))

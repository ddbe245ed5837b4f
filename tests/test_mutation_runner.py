"""scripts/mutants.py: tests are left out only if they fork what was not changed, and no score without tries."""

import argparse
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    import mutants

    return mutants


def test_a_test_that_asks_for_no_fork_is_not_left_out(request):
    assert "forks" not in request.fixturenames


def test_a_room_whose_mutants_were_not_tried_has_no_score(mutants, monkeypatch):
    arguments = argparse.Namespace(match=["losses.py"], all=False, again=None, per_room=1, seed=0)
    room = mutants.plan("alignment", arguments, set())
    monkeypatch.setattr(mutants, "forked", lambda work, seconds: {"outcomes": {"0": "killed: a"}, "rest": {}})
    with pytest.raises(RuntimeError, match=rf"alignment: 1 of {len(room.chosen)} mutants were tried"):
        mutants.run(room, 20)

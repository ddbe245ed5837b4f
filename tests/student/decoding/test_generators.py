"""Random numbers of a decoding method: the same for a question in any batch, others for each purpose and seed."""

from types import SimpleNamespace

import torch
from medalign.student.decoding.core.batch_run import Run


def numbers(questions, seed=0, purpose="tokens"):
    generators = Run.generators(SimpleNamespace(question_ids=questions), seed, purpose)
    return [tuple(torch.rand(4, generator=one).tolist()) for one in generators]


def test_numbers_depend_on_seed_purpose_and_question_and_on_nothing_else():
    first, second = numbers(("a", "b"))
    assert numbers(("x", "b", "a"))[1:] == [second, first]
    others = [numbers(("a",), seed=1), numbers(("a",), purpose="pixels"), numbers(("a",), seed=10, purpose="tokens")]
    assert len({first, second, *(one for (one,) in others)}) == 5


def test_text_is_not_shared_between_seed_purpose_and_question():
    """Seed 1 with `1a` is not seed 11 with `a`."""
    assert numbers(("a",), seed=11, purpose="x") != numbers(("1a",), seed=1, purpose="x")
    assert numbers(("a",), purpose="tokens1") != numbers(("1a",), purpose="tokens")

"""OPERA compared with a reference implementation without a cache, including rollbacks."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from decoded import questions, rotated_student, tokens, written_out
from medalign.student.decoding.methods import opera
from straight_opera import straight_opera
from straight_pass import straight_pass
from students import sample

SETTINGS = {"num_beams": 2, "num_candidates": 2, "max_rollbacks": 2}
PENALIZED = SETTINGS | {"scale_factor": 400.0, "threshold": 2, "warm_up": 0}


@pytest.fixture(scope="module")
def student(student_folder):
    return rotated_student(student_folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Two samples with one image, one without, one with two."""
    asked = questions(tmp_path_factory.mktemp("images"), 4)
    return [asked[0], sample("Say yes.", "yes"), asked[2], asked[3]]


def straight(student, question, length, *, num_beams, num_candidates, scale_factor=50.0, threshold=15, **rest):
    ids, images = written_out(student, question)

    @lru_cache(None)
    def seen(text):
        whole = straight_pass(student, text, images)
        return whole.logits[-1], whole.attention[-1].amax(dim=0)

    return straight_opera(
        lambda text: seen(tuple(text)),
        ids,
        [place for place, token in enumerate(ids) if token == student.model.image_token_id],
        ends=frozenset(student.end_tokens),
        max_new_tokens=length,
        num_beams=num_beams,
        candidates=num_candidates,
        scale=scale_factor,
        threshold=threshold,
        penalty=1.0,
        warm_up=rest.get("warm_up", 10),
        max_rollbacks=rest["max_rollbacks"],
    )


@pytest.fixture
def weighed(monkeypatch):
    """Records the search's candidate scores at every step."""
    seen = []
    weigh = opera.Search.weigh

    def keep(self, *args, **kwargs):
        found = weigh(self, *args, **kwargs)
        seen.append(dict(zip(found.tokens[0].tolist(), found.scores[0].tolist(), strict=True)))
        return found

    monkeypatch.setattr(opera.Search, "weigh", keep)
    return seen


@pytest.mark.parametrize("settings", [SETTINGS, PENALIZED], ids=["seeing the image", "penalized, with rollbacks"])
def test_every_step_equals_the_reference_implementation(student, samples, weighed, settings):
    rollbacks = 0
    for question in samples:
        weighed.clear()
        expected = straight(student, question, 6, **settings)
        assert tokens(student, [question], "opera", length=6, **settings) == [expected.answer]
        assert len(weighed) == len(expected.penalized)
        for found, step in zip(weighed, expected.penalized, strict=True):
            assert found == pytest.approx(step[0], abs=1e-4, rel=1e-4)
        rollbacks += len(expected.rollbacks)
    assert (rollbacks > 0) == (settings is PENALIZED)


def test_rollbacks_with_two_end_tokens_equal_the_reference_implementation(student, samples):
    """The second end token occurs within answers, so beams end at it before and after rollbacks."""
    settings = PENALIZED | {"num_candidates": 3}
    (spoken,) = tokens(student, samples[:1], "opera", length=6, **settings)
    ending = replace(student, end_tokens=(*student.end_tokens, spoken[-1]))
    rollbacks, ends = 0, set()
    for question in samples[:2]:
        expected = straight(ending, question, 6, **settings)
        assert tokens(ending, [question], "opera", length=6, **settings) == [expected.answer]
        rollbacks += len(expected.rollbacks)
        ends.add(expected.answer[-1])
    assert rollbacks > 0
    assert spoken[-1] in ends


@pytest.mark.parametrize("settings", [SETTINGS, PENALIZED], ids=["seeing the image", "penalized, with rollbacks"])
def test_a_batch_answers_as_each_sample_alone(student, samples, settings):
    eight = [*samples, *reversed(samples)]
    together = tokens(student, eight, "opera", length=8, **settings)
    alone = [tokens(student, [one], "opera", length=8, **settings)[0] for one in samples]
    assert together == [*alone, *reversed(alone)]


def test_without_penalty_and_rollback_it_equals_beam_search(student, samples):
    everything = {"num_candidates": 260, "penalty_weight": 0.0, "max_rollbacks": 0}
    beam = tokens(student, samples, "beam", length=8, num_beams=3)
    assert tokens(student, samples, "opera", length=8, num_beams=3, **everything) == beam
    assert tokens(student, samples, "opera", length=8, **PENALIZED) != beam


def test_rejected_tokens_are_set_in_the_logits_which_are_renormalized():
    """Compared with the authors' code (github.com/shikiw/OPERA, commit 61426ef), for one sample with three beams.

    Beams with more of their mass rejected gain more by it, so their order may change.
    """
    logits = 6 * torch.randn(3, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    parents, chosen = torch.tensor([0, 0, 2]), torch.stack([logits[0].argmax(), logits[0].argmin(), logits[2].argmax()])
    shifted = logits - (999.0 + logits.min(-1, keepdim=True).values)
    expected = shifted.view(1, -1).scatter(-1, (parents * 40 + chosen)[None], -999.0).view(3, 40).log_softmax(dim=-1)
    found = opera.without_rejected(logits, [(parents[:1], chosen[:1]), (parents[1:], chosen[1:])])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert (found.logsumexp(dim=-1).abs() < 1e-9).all()

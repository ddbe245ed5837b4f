"""Greedy, beam and nucleus compared with transformers, on padded batches with and without images, with W."""

from dataclasses import replace

import pytest
import torch
from decoded import questions, rotated_student, tokens
from medalign.student.decoding import choose_decoding
from medalign.student.decoding.core.search import sampler
from medalign.student.decoding.generation import answer_batch, start_run
from medalign.student.inputs.collation import Collator, encode_sample
from students import mixed_samples


@pytest.fixture(scope="module")
def student(student_folder):
    return rotated_student(student_folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return [*mixed_samples(folder / "mixed"), *questions(folder / "more", 4)]


def generated(student, samples, **options):
    """transformers' `generate` on the same prompts."""
    batch = Collator(pad_token_id=0, pad_left=True)([encode_sample(student, one, with_answer=False) for one in samples])
    del batch["labels"]
    rows = student.model.llava.generate(**batch, pad_token_id=2, eos_token_id=2, **options)
    rows = rows[:, batch["input_ids"].shape[1] :].tolist()
    return [row[: row.index(2) + 1] if 2 in row else row for row in rows]


@pytest.mark.parametrize("length", [1, 12])
@pytest.mark.parametrize("beams", [1, 2, 5])
def test_greedy_and_beam_answers_equal_those_of_transformers(student, samples, beams, length):
    ours = tokens(student, samples, "beam" if beams > 1 else "greedy", length=length, **beam_settings(beams))
    assert ours == generated(student, samples, num_beams=beams, do_sample=False, max_new_tokens=length)
    assert len({tuple(row) for row in ours}) > 2


def beam_settings(beams):
    return {"num_beams": beams} if beams > 1 else {}


@pytest.fixture
def ending(student, samples):
    """The student with an output layer that makes the end token likely, so that some answers end early."""
    weight = student.model.stock.lm_head.weight
    kept = weight.detach().clone()
    generated = tokens(student, samples[:1], "greedy", length=4)[0]
    with torch.no_grad():
        weight[2] = 1.01 * weight[generated[-1]]
        yield student
        weight.copy_(kept)


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_answers_that_end_early_equal_those_of_transformers(ending, samples, beams):
    ours = tokens(ending, samples, "beam" if beams > 1 else "greedy", length=12, **beam_settings(beams))
    assert ours == generated(ending, samples, num_beams=beams, do_sample=False, max_new_tokens=12)
    assert len({len(row) for row in ours}) > 1


@pytest.mark.parametrize("name", ["greedy", "beam", "nucleus"])
def test_a_batch_answers_as_each_sample_alone(ending, samples, name):
    decoding = choose_decoding(name, max_new_tokens=10)
    together = answer_batch(ending, samples, decoding)
    assert together == [answer_batch(ending, [one], decoding)[0] for one in samples]
    assert len({answer.text for answer in together}) > 2


def test_cost_is_one_pass_per_token_and_beam(ending, samples):
    greedy = tokens(ending, samples, "greedy", length=10)
    found = answer_batch(ending, samples, choose_decoding("greedy", max_new_tokens=10))
    assert [answer.forwards for answer in found] == [len(row) for row in greedy]
    (alone,) = answer_batch(ending, samples[:1], choose_decoding("beam", {"num_beams": 3}, max_new_tokens=1))
    assert alone.forwards == 1
    vcd = answer_batch(ending, samples[:1], choose_decoding("vcd", {"alpha": 0}, max_new_tokens=10))
    assert vcd[0].forwards == 2 * len(greedy[0])


def test_nucleus_follows_its_distribution_and_its_seed(student, samples):
    run = start_run(student, samples[:1], 1)
    with torch.inference_mode():
        logits = run.branch().logits
    probability = (logits[0] / 8).softmax(dim=-1)
    order = probability.argsort(descending=True)
    nucleus = order[: int((probability[order].cumsum(0) < 0.3).sum()) + 1].tolist()
    choose = sampler(replace(run, max_new_tokens=2000), temperature=8.0, top_p=0.3, seed=0)
    drawn = [int(choose(logits)) for _ in range(2000)]
    assert set(drawn) == set(nucleus)
    assert len(nucleus) > 5
    for token in nucleus[:3]:
        share = float(probability[token] / probability[nucleus].sum())
        assert abs(drawn.count(token) / 2000 - share) < 4 * (share * (1 - share) / 2000) ** 0.5
    again = [tokens(student, samples, "nucleus", temperature=5.0, seed=seed) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_nucleus_with_tiny_top_p_is_greedy(student, samples):
    assert tokens(student, samples, "nucleus", top_p=1e-6) == tokens(student, samples, "greedy")


def test_a_suppressed_token_is_never_generated(student, samples, monkeypatch):
    first = tokens(student, samples, "greedy", length=1)
    monkeypatch.setattr(student.model.stock.generation_config, "suppress_tokens", [first[0][0]])
    for name in ("greedy", "beam", "nucleus"):
        assert first[0][0] not in [token for row in tokens(student, samples, name) for token in row]

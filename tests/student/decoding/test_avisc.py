"""AVISC compared with its equations on full passes."""

import pytest
import torch
from decoded import questions, rotated_student, scores, tokens, written_out
from medalign.student.decoding.methods.avisc import AviscSettings, blind_tokens, image_centric_layers
from straight_pass import straight_pass
from straight_scores import blind_tokens as straight_blind_tokens
from straight_scores import contrast


@pytest.fixture(scope="module")
def student(student_folder):
    return rotated_student(student_folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 8)


def test_first_steps_equal_the_reference_implementation(student, samples, monkeypatch):
    generated = torch.randint(4, 260, (len(samples), 2))
    found = scores(student, samples, "avisc", generated, monkeypatch, beta=0.2, lamb=0.5)
    for row, question in enumerate(samples):
        ids, images = written_out(student, question)
        where = [place for place, token in enumerate(ids) if token == student.model.image_token_id]
        blind = straight_blind_tokens(straight_pass(student, ids, images), where, gamma=0.5, lamb=0.5)
        assert 0 < blind.sum() < len(where)
        for step in range(generated.shape[1] + 1):
            text = ids + generated[row, :step].tolist()
            positive = straight_pass(student, text, images).logits[-1]
            negative = straight_pass(student, text, images * blind[:, None]).logits[-1]
            assert (positive - negative).abs().max() > 1e-2
            expected = contrast(positive, negative, alpha=1.0, beta=0.2)
            torch.testing.assert_close(found[step][row], expected, atol=1e-4, rtol=0)


def test_without_contrast_it_is_greedy_and_with_contrast_it_is_not(student, samples):
    greedy = tokens(student, samples, "greedy")
    assert tokens(student, samples, "avisc", alpha=0.0) == greedy
    assert tokens(student, samples, "avisc") != greedy


@pytest.mark.parametrize("beams", [1, 2])
def test_a_batch_of_eight_answers_as_each_sample_alone(student, samples, beams):
    together = tokens(student, samples, "avisc", num_beams=beams)
    assert together == [tokens(student, [one], "avisc", num_beams=beams)[0] for one in samples]


def test_the_fewest_layers_with_the_share_are_selected():
    attention = torch.tensor([1.0, 4.0, 3.0, 2.0])
    assert image_centric_layers(attention, 0.4).tolist() == [1]
    assert image_centric_layers(attention, 0.41).tolist() == [1, 2]
    assert sorted(image_centric_layers(attention, 1.0).tolist()) == [0, 1, 2, 3]


def test_blind_tokens_are_determined_for_each_sample():
    attention = torch.tensor([[[1.0, 1, 1, 9], [5, 5, 5, 5]], [[0, 0, 0, 0], [0, 0, 0, 1]]])
    blind = blind_tokens(attention, torch.tensor([0, 1]), AviscSettings(layer_gamma=0.5))
    assert blind.tolist() == [[False, False, False, True], [True, True, True, True]]
    both = blind_tokens(attention, torch.tensor([0, 0]), AviscSettings(layer_gamma=0.5))
    assert both.tolist() == [[False, False, False, True], [False, False, False, False]]

"""IMCCD compared with its equations on full passes."""

import pytest
import torch
from decoded import questions, rotated_student, scores, tokens, written_out
from straight_pass import straight_pass
from straight_scores import CrossModal, contrast


@pytest.fixture(scope="module")
def student(student_folder):
    return rotated_student(student_folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 8)


def test_first_steps_equal_the_reference_implementation(student, samples, monkeypatch):
    asked = [samples[0], samples[3]]
    generated = torch.randint(4, 260, (len(asked), 2))
    found = scores(student, asked, "imccd", generated, monkeypatch, alpha=1.0, beta=0.2, gamma=0.7, calibrated_layers=2)
    for row, question in enumerate(asked):
        ids, images = written_out(student, question)
        where = torch.tensor([place for place, token in enumerate(ids) if token == student.model.image_token_id])
        mathematics = CrossModal(where.view(-1, student.model.patches).tolist(), gamma=0.7, layers=2)
        for step in range(generated.shape[1] + 1):
            text = [*ids, *generated[row, :step].tolist()]
            calibrated = {"change_scores": mathematics.change_scores}
            plain = straight_pass(student, text, images).logits[-1]
            positive = straight_pass(student, text, images, **calibrated).logits[-1]
            negative = straight_pass(student, text, images, mix=mathematics.mix(len(ids)), **calibrated).logits[-1]
            assert (positive - plain).abs().max() > 1e-2
            assert (positive - negative).abs().max() > 1e-2
            torch.testing.assert_close(found[step][row], contrast(positive, negative, 1.0, 0.2), atol=1e-4, rtol=0)


def test_without_contrast_and_calibration_it_is_greedy(student, samples):
    greedy = tokens(student, samples, "greedy")
    assert tokens(student, samples, "imccd", alpha=0.0, gamma=0.0) == greedy
    assert tokens(student, samples, "imccd", gamma=0.0) != greedy
    assert tokens(student, samples, "imccd", alpha=0.0, gamma=1.0) != greedy


@pytest.mark.parametrize("beams", [1, 2])
def test_a_batch_of_eight_answers_as_each_sample_alone(student, samples, beams):
    together = tokens(student, samples, "imccd", num_beams=beams)
    assert together == [tokens(student, [one], "imccd", num_beams=beams)[0] for one in samples]

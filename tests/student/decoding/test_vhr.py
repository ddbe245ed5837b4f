"""VHR compared with its equations on full passes."""

import pytest
import torch
from decoded import questions, rotated_student, scores, tokens, written_out
from medalign.errors import SettingsError
from medalign.student.decoding.methods.vhr import chosen_layers, reinforcement
from straight_pass import straight_pass
from straight_scores import multiplied, reinforced_heads

LAYERS = [1, 2, 3]


@pytest.fixture(scope="module")
def student(student_folder):
    return rotated_student(student_folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 8)


def test_first_steps_equal_the_reference_implementation(student, samples, monkeypatch):
    generated = torch.randint(4, 260, (4, 2))
    found = scores(student, samples[:4], "vhr", generated, monkeypatch, layers=LAYERS)
    for row, question in enumerate(samples[:4]):
        ids, images = written_out(student, question)
        text = [token for token in ids if token != student.model.image_token_id]

        def look(change_heads, ids=ids, images=images, text=text):
            return (
                straight_pass(student, ids, images, change_heads=change_heads),
                straight_pass(student, text, None, change_heads=change_heads),
            )

        factors = reinforced_heads(look, LAYERS, alpha=2.0)
        assert all(1 < float(factor.sum()) / 4 < 2 for factor in factors.values())
        for step in range(generated.shape[1] + 1):
            whole = [*ids, *generated[row, :step].tolist()]
            expected = straight_pass(student, whole, images, change_heads=multiplied(factors)).logits[-1]
            torch.testing.assert_close(found[step][row], expected, atol=1e-4, rtol=0)


def test_a_factor_of_one_is_greedy_and_of_two_is_not(student, samples):
    greedy = tokens(student, samples, "greedy")
    assert tokens(student, samples, "vhr", alpha=1.0) == greedy
    assert tokens(student, samples, "vhr") != greedy


@pytest.mark.parametrize("beams", [1, 2])
def test_a_batch_of_eight_answers_as_each_sample_alone(student, samples, beams):
    together = tokens(student, samples, "vhr", num_beams=beams)
    assert together == [tokens(student, [one], "vhr", num_beams=beams)[0] for one in samples]


def test_heads_that_surge_without_the_image_are_not_reinforced():
    seen = torch.tensor([0.0, 1.0, 2.0, 3.0, 0.0])[None, :, None]
    unseen = torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0])[None, :, None]
    assert reinforcement(seen, unseen, 2.0).tolist() == [[1, 1, 2, 2, 1]]
    assert reinforcement(unseen, seen, 2.0).tolist() == [[1, 1, 1, 2, 2]]


def test_default_layers_scale_with_the_students_layers():
    assert chosen_layers(32, None) == [1, *range(18, 32)]
    assert chosen_layers(28, None) == [1, *range(16, 28)]
    assert chosen_layers(4, None) == [1, 3]
    with pytest.raises(SettingsError, match="this student has 4 layers"):
        chosen_layers(4, [4])

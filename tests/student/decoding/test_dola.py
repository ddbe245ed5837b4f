"""DoLa compared with its equations on full passes, and with greedy decoding if the settings make it greedy."""

import pytest
import torch
from decoded import questions, rotated_student, scores, tokens, written_out
from medalign.errors import SettingsError
from medalign.student.decoding.generation import start_run
from medalign.student.decoding.methods.dola import candidate_layers, jensen_shannon
from straight_pass import straight_pass
from straight_scores import dola

LAYERS = [0, 1, 3]


@pytest.fixture(scope="module")
def student(student_folder):
    return rotated_student(student_folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 4)


def test_first_steps_equal_the_reference_implementation(student, samples, monkeypatch):
    generated = torch.randint(4, 260, (len(samples), 3))
    found = scores(student, samples, "dola", generated, monkeypatch, layers=LAYERS, relative_top=0.2)
    head = student.model.stock.lm_head.weight
    chosen = set()
    for row, question in enumerate(samples):
        ids, images = written_out(student, question)
        for step in range(generated.shape[1] + 1):
            seen = straight_pass(student, ids + generated[row, :step].tolist(), images)
            expected, layer = dola(seen, head, LAYERS, 0.2)
            chosen.add(layer)
            assert 1 < expected.isfinite().sum() < len(expected)
            torch.testing.assert_close(found[step][row], expected, atol=1e-4, rtol=0)
    assert len(chosen) > 1


def test_relative_top_of_one_is_greedy(student, samples):
    assert tokens(student, samples, "dola", layers=LAYERS, relative_top=1.0) == tokens(student, samples, "greedy")
    assert tokens(student, samples, "dola", layers=LAYERS) != tokens(student, samples, "greedy")


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_answers_as_each_sample_alone(student, samples, beams):
    together = tokens(student, samples, "dola", layers=LAYERS, num_beams=beams)
    alone = [tokens(student, [one], "dola", layers=LAYERS, num_beams=beams)[0] for one in samples]
    assert together == alone


def test_divergence_is_symmetric_and_bounded():
    p, q = torch.randn(2, 5, 7).mul(3).log_softmax(dim=-1)
    torch.testing.assert_close(jensen_shannon(p, q[None])[0], jensen_shannon(q, p[None])[0])
    apart = torch.tensor([[0.0, -1e4], [-1e4, 0.0]])
    torch.testing.assert_close(jensen_shannon(apart[:1], apart[None, 1:]), torch.tensor([[2.0]]).log())
    assert float(jensen_shannon(p, p[None]).abs().max()) < 1e-6


def test_default_candidates_are_even_layers_in_the_lower_half(student_folder, samples):
    student = rotated_student(student_folder)
    run = start_run(student, samples[:1], 1)
    assert candidate_layers(run, 32, None) == range(0, 16, 2)
    student.model.stock.lm_head.weight = student.model.stock.get_input_embeddings().weight
    assert candidate_layers(run, 28, None) == range(2, 14, 2)
    assert candidate_layers(run, 4, None) == (1,)


@pytest.mark.parametrize("layers", [[1, 4], []])
def test_nonexistent_layers_are_refused(student, samples, layers):
    with pytest.raises(SettingsError, match="this student has 4 layers"):
        tokens(student, samples, "dola", layers=layers)

"""Every decoding method describes phantoms in its own way: none of them is another one under a second name."""

from itertools import combinations

import pytest
import torch
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.data.samples import manifest_samples
from medalign.pipeline.demo.demo import ASSETS
from medalign.progress import Silent
from medalign.student.decoding import choose_decoding, decodings
from medalign.student.decoding.generation import answer_batch
from medalign.student.loading.student_loading import load_student


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What the demo's student says of 12 phantoms, by method, each with its defaults.

    The student is so sure of its words that greedy, beam, opera and dola agree; noise in its weights makes it doubt.
    """
    report = make_phantoms(tmp_path_factory.mktemp("phantoms") / "drawn", 12, 0, Silent(), shift=0.7)
    samples = [sample for sample in manifest_samples(report.manifest) if sample.question == "Describe the image."]
    student = load_student(ASSETS / "phantom-student", template="plain")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for matrix in (p for p in student.model.llava.model.language_model.parameters() if p.dim() == 2):
            matrix += 0.8 * matrix.std() * torch.randn(matrix.shape, generator=generator)
    return {
        name: [said.text for said in answer_batch(student, samples, choose_decoding(name, max_new_tokens=24))]
        for name in decodings()
    }


def test_no_two_methods_give_the_same_predictions_throughout(answers):
    assert all(len(set(said)) > 6 for said in answers.values())
    same = [pair for pair in combinations(answers, 2) if answers[pair[0]] == answers[pair[1]]]
    assert not same

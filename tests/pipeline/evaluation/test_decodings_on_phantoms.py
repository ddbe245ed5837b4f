"""Every decoding method describes phantoms in its own way: none of them is another one under a second name."""

from itertools import combinations

import pytest
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.data.samples import manifest_samples
from medalign.pipeline.demo.demo import ASSETS
from medalign.progress import Silent
from medalign.student.decoding import choose_decoding, decodings
from medalign.student.decoding.generation import answer_batch
from medalign.student.loading.student_loading import load_student


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What the demo's student says of 12 phantoms, by method, each with its defaults."""
    report = make_phantoms(tmp_path_factory.mktemp("phantoms") / "drawn", 12, 0, Silent())
    samples = [sample for sample in manifest_samples(report.manifest) if sample.question == "Describe the image."]
    student = load_student(ASSETS / "phantom-student", template="plain")
    return {
        name: [said.text for said in answer_batch(student, samples, choose_decoding(name, max_new_tokens=24))]
        for name in decodings()
    }


def test_no_two_methods_give_the_same_predictions_throughout(answers):
    assert all(len(set(said)) > 6 for said in answers.values())
    same = [pair for pair in combinations(answers, 2) if answers[pair[0]] == answers[pair[1]]]
    assert not same

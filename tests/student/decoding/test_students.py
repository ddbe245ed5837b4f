"""Every method works with every kind of student (Mistral, Qwen2 with biases, LoRA), in batches and alone."""

import pytest
import torch
from decoded import questions, tokens
from medalign.student.decoding import decodings
from medalign.student.loading.student_loading import open_student
from originals import write_original
from students import trainable

FEW_BEAMS = {"opera": {"num_beams": 2, "num_candidates": 3}, "beam": {"num_beams": 2}, "damro": {"outliers": 3}}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 3)


@pytest.fixture(scope="module", params=["llava-med", "huatuo", "lora"])
def student(request, tmp_path_factory, student_folder):
    if request.param == "lora":
        found = trainable(student_folder)
    else:
        folder = write_original(tmp_path_factory.mktemp("original") / request.param, request.param).folder
        found = open_student(folder, layers=[1], rotation="full")
    found.model.eval()
    with torch.no_grad():
        for name, parameter in found.model.named_parameters():
            if "lora_B" in name or name.startswith("aligned."):
                parameter.normal_(std=0.1)
    return found


@pytest.mark.parametrize("name", sorted(decodings()))
def test_a_batch_answers_as_each_sample_alone(student, samples, name):
    settings = FEW_BEAMS.get(name, {})
    together = tokens(student, samples, name, length=4, **settings)
    assert together == [tokens(student, [one], name, length=4, **settings)[0] for one in samples]
    assert any(together)

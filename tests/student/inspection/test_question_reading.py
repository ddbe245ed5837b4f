"""Attention and loss from one pass over question and answer are those of two separate passes."""

import pytest
import torch
from medalign.errors import InputError
from medalign.student.inputs.collation import AlignmentCollator, encode_sample
from medalign.student.inspection.question_attention import question_attention
from medalign.student.inspection.question_reading import read_questions
from medalign.student.loading.student_loading import load_student
from students import mixed_samples, sample, write_images


@pytest.fixture(scope="module")
def student(student_folder):
    return load_student(student_folder)


def test_attention_and_loss_equal_separate_passes(student, tmp_path):
    a, b, c = write_images(tmp_path, [(24, 24), (40, 20), (18, 30)])
    samples = [
        sample("What is it?", "lungs: both of them", a),
        sample("And now?", "no", b, history=(("Is it a scan?", "yes"),)),
        sample("Nobody knows?", " ", c),
    ]
    read = read_questions(student, samples)
    torch.testing.assert_close(torch.stack([one.attention for one in read]), question_attention(student, samples))
    for one, asked in zip(read[:2], samples, strict=False):
        batch = AlignmentCollator.of(student)([encode_sample(student, asked, with_answer=True)])
        with torch.no_grad():
            output = student.model(**batch)
        assert one.loss_lm == pytest.approx(float(output.loss_lm / output.answer_tokens), rel=1e-4)
    assert read[2].loss_lm is None


def test_questions_without_one_image_or_too_long_are_refused(student, tmp_path):
    for unfit in mixed_samples(tmp_path)[1:3]:
        with pytest.raises(InputError, match=r"images, but only questions with one are read"):
            read_questions(student, [unfit])
    (image,) = write_images(tmp_path, [(24, 24)])
    with pytest.raises(InputError, match=r"more than the 512 positions"):
        read_questions(student, [sample("Long?", "word " * 120, image)])

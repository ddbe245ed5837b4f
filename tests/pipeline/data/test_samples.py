"""Rows become what the student is asked: options stand below a question that does not name them."""

import pytest
from medalign.errors import InputError
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.data.samples import answered_samples, manifest_samples, with_options


@pytest.mark.parametrize(
    ("question", "options", "asked"),
    [
        ("What is it?", (), "What is it?"),
        ("What is it?", ("CT scan", "MRI"), "What is it?\nA. CT scan\nB. MRI"),
        ("Is it a ct-scan or an MRI?", ("CT scan", "MRI"), "Is it a ct-scan or an MRI?"),
        ("Is it a CT or an MRI?", ("CT scan", "MRI"), "Is it a CT or an MRI?\nA. CT scan\nB. MRI"),
        ("Does yesterday's nodule grow?", ("yes", "no"), "Does yesterday's nodule grow?\nA. yes\nB. no"),
        ("How many?", ("3", "?"), "How many?\nA. 3\nB. ?"),
    ],
)
def test_options_stand_below_a_question_that_does_not_name_them(question, options, asked):
    assert with_options(question, options) == asked


def test_a_choice_is_asked_with_its_options(tmp_path):
    row = ManifestRow(
        question_id="q",
        question="Which?",
        answer="b",
        answer_type="choice",
        options=("a", "b"),
        split="test",
        data_use="public",
    )
    (sample,) = manifest_samples(Manifest.from_rows([row], tmp_path, "x"))
    assert (sample.question, sample.answer) == ("Which?\nA. a\nB. b", "b")


@pytest.mark.parametrize("read", [manifest_samples, answered_samples])
def test_an_image_that_could_not_be_decoded_is_refused_before_anything_starts(tmp_path, read):
    """Not when its turn comes, which may be hours later."""
    stored = {"question": "What?", "answer": "b", "answer_type": "open", "split": "train", "data_use": "public"}
    rows = [
        ManifestRow(question_id=f"q{n}", image=f"{n}.png", image_hash=f"{n}" * 64, pixel_hash=pixels, **stored)
        for n, pixels in enumerate(["a" * 64, None, None])
    ]
    with pytest.raises(
        InputError, match=r"^2 images in split train of the x .* first: 1\.png, of question 'q1'\. Replace"
    ):
        read(Manifest.from_rows(rows, tmp_path, "x"))
    assert len(read(Manifest.from_rows(rows[:1], tmp_path, "x"))) == 1

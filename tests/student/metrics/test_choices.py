"""Option matching: the reference reading equals run_eval on a frozen table; the strict reading is correct."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medalign.student.metrics.choices import answer_index, reference_choice, strict_choice
from medalign.student.metrics.vqa import score_choice

TABLE = json.loads((Path(__file__).parent / "data" / "choice_scores.json").read_text())
"""Accuracies that the released run_eval (evaluate_mc) gave for single questions (see docs/metrics.md)."""

SCANS = ["PET scan", "CT scan", "Blood test", "Fundus imaging"]
LUNGS = ["Lung", "Left lung", "Right lung"]


def test_the_frozen_table_is_large_and_varied():
    assert len(TABLE) >= 200
    assert 0.3 < sum(row["correct"] for row in TABLE) / len(TABLE) < 0.7
    assert {len(row["options"]) for row in TABLE} == {2, 3, 4}


def test_reference_scores_equal_run_eval_exactly():
    wrong = [
        row
        for row in TABLE
        if score_choice(row["prediction"], row["answer"], row["options"]).reference.value != row["correct"]
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("prediction", "answer", "options", "reference", "strict"),
    [
        ("B", "CT scan", SCANS, 0, 1),  # one letter is like "Blood test"
        ("(b).", "CT scan", SCANS, 0, 1),
        ("B: CT scan", "CT scan", SCANS, 1, 1),
        ("The correct answer is (B).", "CT scan", SCANS, 1, 1),
        ("ct scan", "CT scan", SCANS, 1, 1),
        ("mr", "MR", ["MR", "CT", "X-Ray"], 0, 1),  # case counts for difflib
        ("This is a CT scan of the chest", "CT scan", SCANS, 1, 1),
        ("D. CT scan", "CT scan", SCANS, 1, 0),  # the letter says otherwise
        ("a CT scan or a PET scan", "PET scan", SCANS, 1, 0),
        ("tset doolB", "Blood test", SCANS, 1, 0),
        ("It is not Fundus imaging", "PET scan", SCANS, 0, 0),
        ("in the left lung", "Left lung", LUNGS, 1, 1),  # "Lung" inside it does not count
        ("the lung", "Lung", LUNGS, 0, 1),
        ("A lung", "Lung", LUNGS, 0, 1),  # an article, no letter
        ("A", "A", ["B", "A"], 1, 1),  # the options are letters themselves
        ("No, it is normal.", "No", ["No", "Yes"], 1, 1),
        ("123", "PET scan", SCANS, 0, 0),
        ("123", "456", SCANS, 1, None),  # neither is like any option: run_eval counts that as right
        ("E", "F", ["1", "2", "3", "4", "E", "F"], 1, 0),  # nothing after option_D is read
    ],
)
def test_differences_between_the_readings(prediction, answer, options, reference, strict):
    scores = score_choice(prediction, answer, options)
    assert scores.reference.value == reference
    assert (scores.strict and scores.strict.value) == strict


def test_the_answer_can_be_the_letter_of_its_option():
    assert answer_index("C", SCANS) == 2
    assert answer_index("blood test.", SCANS) == 2
    assert answer_index("Biopsy", SCANS) is None
    assert answer_index("", SCANS) is None
    assert answer_index("E", SCANS) is None


@given(text=st.text(), options=st.lists(st.text(), max_size=6))
def test_any_text_gives_an_option_or_none(text, options):
    for choose in (reference_choice, strict_choice, answer_index):
        chosen = choose(text, options)
        assert chosen is None or 0 <= chosen < len(options)


@given(
    options=st.lists(st.sampled_from([*SCANS, *LUNGS, "Grade 0", "None of these"]), min_size=2, unique=True),
    data=st.data(),
)
def test_an_option_can_be_stated_by_words_letter_or_both(options, data):
    index = data.draw(st.integers(0, len(options) - 1))
    letter = "ABCDEFGHIJ"[index]
    for prediction in (options[index], letter, f"{letter}: {options[index]}", f"Answer: {options[index].lower()}!"):
        assert strict_choice(prediction, options) == index

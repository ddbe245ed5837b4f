"""The reference reading equals LLaVA-Med's run_eval on a frozen table; the strict reading is correct."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medalign.student.metrics import answer_words
from medalign.student.metrics.answer_words import contains_phrase, strict_words
from medalign.student.metrics.vqa import (
    AnsweredQuestion,
    Mean,
    Score,
    reference_score,
    score_question,
    strict_score,
    summarize,
)

TABLE = json.loads((Path(__file__).parent / "data" / "reference_scores.json").read_text())
"""Percentages that run_eval printed for single questions (see docs/metrics.md)."""


def test_the_frozen_table_is_large_and_varied():
    assert len(TABLE) >= 250
    assert Counter(row["answer_type"] for row in TABLE).keys() == {"open", "closed", None}
    assert sum(0 < row["percent"] < 100 for row in TABLE) >= 10


def test_reference_scores_equal_run_eval_exactly():
    wrong = []
    for row in TABLE:
        score = reference_score(row["prediction"], row["answer"], row["answer_type"])
        assert score.kind == ("open" if row["answer_type"] == "open" else "closed")
        if score.value * 100 != row["percent"]:
            wrong.append((row, score))
    assert wrong == []


@pytest.mark.parametrize(
    ("prediction", "answer", "answer_type", "reference", "strict"),
    [
        ("There is a nodule", "no", "closed", 1, 0),  # "nodule" contains "no"
        ("not sure", "no", "closed", 1, 0),
        ("noyes", "yes", "closed", 1, 0),
        ("no, not yes", "yes", "closed", 1, 0),  # the first stated one decides
        ("Yes. There is no fracture.", "no", "closed", 1, 0),
        ("yes", "Yes, bilateral", "closed", 0, 1),
        ("left", "left", "closed", 0, 1),  # not binary: its own answer counts
        ("on the left side", "left side", "closed", 0, 1),
        ("the left one, side unknown", "left side", "closed", 0, 0),
        ("cleft side", "left side", "closed", 0, 0),
        ("yes", "left", "closed", 0, 0),
        ("lung lung lung", "lung mass", "open", 0.75, 0.5),  # a repeated word counts once
        ("right lung", "right right lung", "open", 1, 2 / 3),
        ("3,500 ml", "3500", "open", 1, 1),
        ("leftsided", "left-sided - big", "open", 0.5, 0),  # a hyphen beside a blank glues its neighbors
        ("heart -- enlarged left-sided", "left sided", "open", 0, 1),
        ("none", "0", "open", 1, 0),
        ("five", "5", "open", 1, 1),
        ("don't", "dont", "open", 1, 1),
        ("mm. " * 40 + "lesion.", "lesion", "open", 1, 1),
        ("５ cm", "5 cm", "open", 0.5, 1),  # compatibility forms
        ("", "lung", "open", 0, 0),
    ],
)
def test_differences_between_the_readings(prediction, answer, answer_type, reference, strict):
    scores = score_question(AnsweredQuestion(prediction=prediction, answer=answer, answer_type=answer_type))
    assert scores.reference.value == pytest.approx(reference)
    assert scores.strict.value == pytest.approx(strict)


def test_a_missing_answer_type_is_closed_in_reference_and_inferred_in_strict():
    assert reference_score("lung", "lung", None) == Score("closed", 0.0)
    assert strict_score("lung", "lung", None) == Score("open", 1.0)
    assert strict_score("Yes!", "yes", None) == Score("closed", 1.0)


def test_reports_and_choices_without_options_are_not_scored_here():
    for answer_type in ("report", "choice"):
        scores = score_question(AnsweredQuestion(prediction="yes", answer="yes", answer_type=answer_type))
        assert (scores.reference, scores.strict) == (None, None)


def test_answers_without_words():
    unanswered = score_question(AnsweredQuestion(prediction="yes", answer=None, answer_type="open"))
    assert (unanswered.reference, unanswered.strict) == (None, None)
    assert strict_score("lung", "?!", "open") is None
    assert strict_score("a", "A", "open") == Score("open", 1.0)


def test_strict_words_are_whole_words():
    assert strict_words("The 3.5-cm mass_of Crohn’s (T2/FLAIR), 1,200 two.") == [
        "3.5",
        "cm",
        "mass",
        "of",
        "crohns",
        "t2",
        "flair",
        "1200",
        "2",
    ]
    assert strict_words("1,2") == ["1", "2"]
    assert strict_words("lung.mass 'quoted' v1.x") == ["lung", "mass", "quoted", "v1", "x"]


words = st.lists(st.sampled_from(["left", "right", "lung", "mass", "no", "yes"]), max_size=6)


@given(predicted=words, expected=words.filter(bool), kind=st.sampled_from(["open", "closed"]))
def test_strict_scores_equal_a_slow_count(predicted, expected, kind):
    score = strict_score(" ".join(predicted), " ".join(expected), kind)
    if kind == "open":
        left = list(predicted)
        found = 0
        for word in expected:
            if word in left:
                left.remove(word)
                found += 1
        assert score == Score("open", found / len(expected))
    elif expected[0] in ("yes", "no"):
        first = [word for word in predicted if word in ("yes", "no")][:1]
        assert score == Score("closed", float(first == expected[:1]))
    else:
        padded, phrase = f" {' '.join(predicted)} ", f" {' '.join(expected)} "
        assert score == Score("closed", float(phrase in padded))
        assert contains_phrase(predicted, expected) == (phrase in padded)


@given(prediction=st.text(), answer=st.text(), kind=st.sampled_from(["open", "closed", None]))
def test_scores_stay_in_range_for_any_text(prediction, answer, kind):
    for score in (reference_score(prediction, answer, kind), strict_score(prediction, answer, kind)):
        assert score is None or 0 <= score.value <= 1


@given(answer=st.text(), kind=st.sampled_from(["open", "closed", None]))
def test_the_reference_answer_is_correct_in_the_strict_reading(answer, kind):
    score = strict_score(answer, answer, kind)
    assert score is None or score.value == 1


def test_summary_averages_each_reading_overall_and_by_group():
    questions = [
        AnsweredQuestion(prediction="nodule", answer="no", answer_type="closed", modality="CT", organ="lung"),
        AnsweredQuestion(prediction="yes", answer="yes", answer_type="closed", modality="MRI"),
        AnsweredQuestion(prediction="lung", answer="left lung", answer_type="open", modality="CT"),
        AnsweredQuestion(prediction="x", answer="long report", answer_type="report", modality="CT"),
        AnsweredQuestion(prediction="x", answer=None, answer_type="open"),
        AnsweredQuestion(prediction="B", answer="MRI", answer_type="choice", options=["CT", "MRI"], modality="MRI"),
    ]
    summary = summarize(questions)
    assert summary.questions == 6
    assert summary.reference.open_recall == Mean(0.5, 1)
    assert summary.reference.closed_accuracy == Mean(1.0, 2)
    assert summary.strict.closed_accuracy == Mean(0.5, 2)
    assert (summary.reference.choice_accuracy, summary.strict.choice_accuracy) == (Mean(0.0, 1), Mean(1.0, 1))
    assert (summary.reference.unscored, summary.strict.unscored) == (2, 2)
    modality = summary.strict.groups["modality"]
    assert modality == {
        "CT": {"open": Mean(0.5, 1), "closed": Mean(0.0, 1), "choice": Mean(None, 0)},
        "MRI": {"open": Mean(None, 0), "closed": Mean(1.0, 1), "choice": Mean(1.0, 1)},
    }
    assert summary.strict.groups["organ"].keys() == {"lung", "unknown"}
    assert summary.strict.groups["question_type"].keys() == {"unknown"}
    assert summary.strict.groups["answer_type"]["closed"]["closed"] == Mean(0.5, 2)


def test_a_summary_of_no_questions_is_absent_not_zero():
    summary = summarize([])
    assert summary.reference.open_recall == Mean(None, 0)
    assert summary.strict.groups["modality"] == {}


def test_the_table_of_contractions_has_each_word_without_one_apostrophe():
    """As in LLaVA-Med's run_eval: a word with two apostrophes has two misspellings; one entry goes the other way."""
    table = answer_words._restored_apostrophes()
    assert table["dont"] == "don't"
    assert table["couldnt've"] == table["couldn'tve"] == "couldn't've"
    assert "couldntve" not in table
    assert table["somebody'd"] == "somebodyd"

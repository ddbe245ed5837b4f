"""A few right, wrong and empty answers, each on one line that a terminal shows whole."""

import sys
from importlib import import_module
from types import SimpleNamespace

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.cli import app
from medalign.pipeline.evaluation.example_answers import MOST, ExampleAnswer, example_answers, example_lines, shortened
from medalign.pipeline.runs.answer_log import LoggedAnswer
from medalign.student.metrics.vqa import AnsweredQuestion, score_question
from rich.cells import cell_len
from typer.testing import CliRunner

TEXTS = st.text(st.sampled_from("ab c肺e\u0301\n\x1b\u202e.,"), max_size=120)


def examples_of(cases):
    """The examples of (question, reference, answer) cases that are open questions."""
    questions = pl.DataFrame([case[:2] for case in cases], schema=["question", "answer"], orient="row")
    answers = [
        LoggedAnswer(question_id=str(number), prediction=case[2], seconds=0.0, forwards=1, finish="end")
        for number, case in enumerate(cases)
    ]
    scores = [
        score_question(AnsweredQuestion(prediction=answer, answer=reference, answer_type="open"))
        for _, reference, answer in cases
    ]
    return example_answers(questions, answers, scores)


def test_right_wrong_and_empty_answers_are_chosen_by_the_strict_score():
    cases = [
        ("q0", "liver", "the liver"),
        ("q1", "left lung", "left"),  # half of the words: neither right nor wrong
        ("q2", "liver", "spleen"),
        ("q3", "liver", "  "),
        ("q4", None, "spleen"),
        ("q5", None, ""),
    ]
    assert [(example.outcome, example.question) for example in examples_of(cases)] == [
        ("right", "q0"),
        ("wrong", "q2"),
        ("empty", "q3"),
        ("empty", "q5"),
    ]


def test_examples_are_spread_over_different_questions():
    cases = [(f"q{number // 3}", "liver", "liver" if number % 2 else "spleen") for number in range(60)]
    chosen = examples_of(cases)
    assert [example.outcome for example in chosen] == ["right"] * MOST["right"] + ["wrong"] * MOST["wrong"]
    for outcome in ("right", "wrong"):
        questions = [int(e.question[1:]) for e in chosen if e.outcome == outcome]
        assert len(set(questions)) == 3
        assert max(questions) - min(questions) >= 12


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from(["right", "wrong", "empty"]), TEXTS, TEXTS, TEXTS), min_size=1, max_size=4),
    st.integers(50, 100),
)
def test_lines_are_printable_and_fit(rows, width):
    examples = [ExampleAnswer(outcome=o, question=q, reference=r, answer=a) for o, q, r, a in rows]
    lines = example_lines(examples, width)
    assert len(lines) == 1 + len(examples)
    assert all(line.isprintable() and cell_len(line) <= width for line in lines)
    assert [line.split()[0] for line in lines[1:]] == [example.outcome for example in examples]


def test_the_command_shows_examples_and_curves_on_stderr_only_without_json(monkeypatch):
    """Standard output stays what it was, so that nothing that reads it has to change."""
    import_module("medalign.pipeline.training.train")
    example = ExampleAnswer(outcome="wrong", question="Is it?", reference="yes", answer="no\x1b[2J")
    report = SimpleNamespace(
        summary=lambda: {"questions": 1},
        table=lambda: {"questions": 1},
        example_lines=lambda: example_lines([example]),
        was_finished=False,
        result=SimpleNamespace(interrupted=False),
    )
    settings = SimpleNamespace(data=SimpleNamespace(manifest="m"))
    monkeypatch.setattr("medalign.pipeline.evaluation.evaluate.run_evaluation", lambda *_, **__: report)
    monkeypatch.setattr("medalign.pipeline.training.resume.load_run_settings", lambda *_, **__: settings)
    monkeypatch.setattr("medalign.pipeline.training.train.run_training", lambda *_, **__: report)
    monkeypatch.setattr(
        "medalign.pipeline.training.loss_log.show_loss_curves", lambda out: print("o/log", file=sys.stderr)
    )
    for words, shown in (
        ("student evaluate --student s --manifest m --out o", r"wrong  Is it?    yes        no\x1b[2J"),
        ("student train c.yaml --out o", "o/log"),
    ):
        plain, quiet = (CliRunner().invoke(app, [*words.split(), *more]) for more in ((), ("--json",)))
        assert shown in plain.stderr.splitlines()
        assert shown not in plain.stdout + quiet.stdout + quiet.stderr


def test_no_examples_have_no_lines():
    assert example_lines([]) == []


def test_long_texts_end_after_a_word():
    long = ExampleAnswer(
        outcome="wrong", question="Is there any evidence of a pneumothorax on the left side of this chest radiograph?",
        reference="yes", answer="No, there is no evidence of a pneumothorax in this radiograph of the chest.",
    )  # fmt: skip
    _, line = example_lines([long])
    assert line.startswith("wrong  Is there any evidence of a")
    assert "  yes  " in line.replace("yes      ", "yes  ")
    for part in line.removeprefix("wrong").split("..."):
        assert not part or part.split()[-1] in (long.question + long.answer).replace("?", "").split()


@given(st.text("abc 肺", max_size=60), st.integers(0, 40))
def test_shortened_texts_fit_and_begin_alike(text, width):
    short = shortened(text, width)
    assert cell_len(short) <= max(width, 0)
    kept = short.removesuffix("...") if short != text else text
    assert text.startswith(kept.rstrip()[:-1])

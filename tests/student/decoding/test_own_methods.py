"""Mistakes in a user's own decoding method: each is an error that names the method and says what is wrong."""

import re
import sys
from dataclasses import make_dataclass, replace
from functools import partial
from importlib.metadata import EntryPoint

import pytest
import torch
from decoded import questions, rotated_student, tokens, written_out
from medalign.errors import InputError, SettingsError
from medalign.pipeline.evaluation.decoding_choice import describe_decodings
from medalign.progress import Silent
from medalign.student.decoding import choose_decoding, find_method, method_registry, register
from medalign.student.decoding.core.scorer import Branches
from medalign.student.decoding.core.search import search
from medalign.student.decoding.core.shared_settings import SearchSettings
from medalign.student.decoding.generation import answer_batch
from medalign.student.decoding.methods.greedy import METHOD
from medalign.student.decoding.questions import Question, answer_questions
from pages import ROOT, blocks
from straight_pass import straight_pass

OWN_DECODING = ROOT / "docs" / "how-to" / "own-decoding.md"


@pytest.fixture(scope="module")
def student(student_folder):
    return rotated_student(student_folder)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 3)


@pytest.fixture
def own(monkeypatch):
    """Register a method `own` whose scores are `combine(logits)`, and return it with settings."""
    monkeypatch.setattr(method_registry, "_METHODS", dict(method_registry._METHODS))

    def register_with(combine, **changes):
        def answer(run, settings):
            return search(run, Branches([run.branch()], lambda number, logits: combine(logits[0])), settings)

        register(replace(METHOD, name="own", settings=SearchSettings, answer=answer, **changes))

    return register_with


def own_answers(student, samples, **settings):
    return answer_batch(student, samples, choose_decoding("own", settings, max_new_tokens=3))


@pytest.mark.parametrize(
    ("combine", "what"),
    [
        (lambda scores: scores[0], r"a tensor of shape \[V\]"),
        (lambda scores: scores[:1], r"a tensor of shape \[1, V\]"),
        (lambda scores: scores[:, :5], r"a tensor of shape \[R, 5\]"),
        (lambda scores: scores[:, -1], r"a tensor of shape \[R\]"),
        (lambda scores: scores[None], r"a tensor of shape \[1, R, V\]"),
        (lambda scores: scores.argmax(-1), r"a tensor of shape \[R\]"),
        (lambda scores: scores.long(), "a tensor of type int64"),
        (lambda scores: None, "an object of type NoneType"),
        (lambda scores: [scores], "an object of type list"),
        (lambda scores: scores.numpy(), "an object of type ndarray"),
    ],
)
@pytest.mark.parametrize("beams", [1, 2])
def test_scores_of_another_shape_are_refused(student, samples, own, combine, what, beams):
    """Broadcast, they would give every question the answer of the first one."""
    own(combine)
    vocabulary = student.model.stock.lm_head.weight.shape[0]
    what = what.replace("V", str(vocabulary)).replace("R", "3")
    expected = rf"`own\..*<lambda>` in .*test_own_methods returned {what}, but .* of shape \[3, {vocabulary}\]"
    with pytest.raises(InputError, match=expected):
        own_answers(student, samples, num_beams=beams)


def test_functions_without_a_name_are_quoted(student, samples, own, monkeypatch):
    """A partial, or an object that can be called."""
    own(lambda scores: scores)
    wrong = partial(lambda cut, number, logits: logits[0][:cut], 1)

    def answer(run, settings):
        return search(run, Branches([run.branch()], wrong), settings)

    whole = replace(METHOD, name="own", settings=SearchSettings, answer=partial(answer))
    monkeypatch.setitem(method_registry._METHODS, "own", whole)
    with pytest.raises(InputError, match=r"^functools\.partial\(.*\) returned a tensor of shape \[1, "):
        own_answers(student, samples)
    nothing = replace(whole, answer=partial(lambda run, settings: None))
    monkeypatch.setitem(method_registry._METHODS, "own", nothing)
    with pytest.raises(
        InputError, match=r"returned an object of type NoneType.* Correct the return value of functools"
    ):
        own_answers(student, samples)


def test_scores_of_own_scorers_are_checked_too(student, samples, own, monkeypatch):
    class FirstOnly(Branches):
        def advance(self, tokens):
            return super().advance(tokens)[:1]

    def answer(run, settings):
        return search(run, FirstOnly([run.branch()]), settings)

    own(lambda scores: scores)
    monkeypatch.setitem(
        method_registry._METHODS, "own", replace(METHOD, name="own", settings=SearchSettings, answer=answer)
    )
    for beams in (1, 2):
        with pytest.raises(InputError, match=r"`.*FirstOnly\.advance` in .* returned a tensor of shape \[1, "):
            own_answers(student, samples, num_beams=beams)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_blamed_on_the_method(student, samples, own, value):
    own(lambda scores: torch.full_like(scores, value))
    with pytest.raises(
        InputError, match=r"NaN or infinite, or exclude every token\. Correct `.*answer` in .*own_methods"
    ):
        own_answers(student, samples)


def test_an_error_inside_a_method_names_it_and_the_line(student, samples, own):
    def fail(scores):
        raise ValueError("blocks=5 does not divide 96x96.")

    own(fail)
    line = fail.__code__.co_firstlineno + 1
    expected = (
        rf"'own' raised ValueError: blocks=5 does not divide 96x96 \(at test_own_methods\.py:{line}, in the batch"
    )
    with pytest.raises(InputError, match=expected) as caught:
        own_answers(student, samples)
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_a_method_refuses_itself_is_left_as_it_is(student, samples, own):
    def refuse(scores):
        raise InputError("decode.blocks is 5: use 4")

    own(refuse)
    with pytest.raises(InputError, match=r"^decode\.blocks is 5: use 4$"):
        own_answers(student, samples)


def test_a_method_that_needs_an_image_says_no_more_than_that(student, samples, own):
    own(lambda scores: scores, needs_image=True)
    text_only = replace(samples[0], images=())
    with pytest.raises(InputError, match=r"own decoding needs an image, but question '.*' has none"):
        own_answers(student, [text_only])


@pytest.mark.parametrize("name", ["", "a b", "x/y", "..", "-x"])
def test_names_that_no_command_or_folder_can_have_are_refused(own, name):
    with pytest.raises(SettingsError, match=r"must begin with a letter from A to Z or a digit"):
        register(replace(METHOD, name=name))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"name": 5}, "its name is 5, but must begin"),
        ({"name": None}, "its name is None, but must begin"),
        ({"answer": None}, "its answer is None, but should be a function"),
        ({"settings": make_dataclass("Needy", ["needed"])}, "its setting 'needed' has no default"),
    ],
)
def test_parts_of_the_wrong_kind_are_refused(own, changes, what):
    with pytest.raises(SettingsError, match=what):
        register(replace(METHOD, **{"name": "own", **changes}))
    with pytest.raises(SettingsError, match=r"is no medalign\.student\.decoding\.Method"):
        register(own)


@pytest.mark.parametrize("error", [SystemExit(0), AttributeError("'Run' has no attribute 'x'"), AssertionError()])
def test_errors_inside_a_method_are_quoted_plainly(student, samples, own, error):
    def fail(scores):
        raise error

    own(fail)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    with pytest.raises(InputError, match=rf"'own' raised {re.escape(said)} \(at test_own_methods\.py:"):
        own_answers(student, samples)


def test_a_function_with_the_wrong_arguments_is_named_by_its_own_line(student, samples, own, monkeypatch):
    def answer(run):
        return run

    own(lambda scores: scores)
    method = replace(METHOD, name="own", settings=SearchSettings, answer=answer)
    monkeypatch.setitem(method_registry._METHODS, "own", method)
    line = answer.__code__.co_firstlineno
    with pytest.raises(InputError, match=rf"TypeError: .* 2 were given \(at test_own_methods\.py:{line}, "):
        own_answers(student, samples)


def test_settings_are_a_dataclass(own):
    class Plain:
        alpha = 1.0

    with pytest.raises(
        SettingsError, match=r"'own' cannot be registered: its settings are .*, but should be a dataclass"
    ):
        register(replace(METHOD, name="own", settings=Plain))


class Uncached:
    """The scores of the page's repetition penalty, from passes over the whole text of each row."""

    def __init__(self, student, samples, penalty):
        self.student, self.penalty = student, penalty
        self.rows = [(*written_out(student, one), []) for one in samples]

    def start(self):
        return torch.stack([self.scores(*row) for row in self.rows])

    def scores(self, prompt, images, answer):
        scores = straight_pass(self.student, [*prompt, *answer], images).logits[-1].clone()
        for token in set(answer):
            scores[token] = scores[token] / self.penalty if scores[token] > 0 else scores[token] * self.penalty
        return scores

    def advance(self, tokens):
        self.rows = [(*row[:2], [*row[2], token]) for row, token in zip(self.rows, tokens.tolist(), strict=True)]
        return self.start()

    def select(self, rows):
        self.rows = [self.rows[row] for row in rows.tolist()]


@pytest.mark.parametrize("beams", [1, 3])
def test_the_repetition_penalty_of_the_page_is_that_of_a_slow_version(student, samples, own, beams):
    """With beams, what the page's scorer remembers must follow their order."""
    (block,) = [one for one in blocks(OWN_DECODING.read_text()) if one.title == "unrepeated.py"]
    page = {"__name__": "unrepeated"}
    exec(block.text, page)
    register(page["METHOD"])

    def slow(run, settings):
        return search(run, Uncached(student, samples, settings.penalty), settings)

    register(replace(page["METHOD"], name="slow", answer=slow))

    def answers(name, **settings):
        return tokens(student, samples, name, length=8, num_beams=beams, **settings)

    penalized, plain = answers("unrepeated", penalty=3.0), answers("unrepeated", penalty=1.0)
    assert penalized == answers("slow", penalty=3.0)
    assert plain == answers("slow", penalty=1.0)
    assert penalized != plain


def test_an_import_that_ends_the_process_takes_no_other_method_with_it(monkeypatch, tmp_path):
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('no license')\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("leaves", "leaves:METHOD", method_registry.ENTRY_POINTS)
    monkeypatch.setattr(method_registry, "installed_entry_points", lambda group: [entry])
    assert "SystemExit: no license" in describe_decodings()["leaves"]["formula"]
    with pytest.raises(
        SettingsError, match=r"'leaves' of an installed package cannot be loaded.* SystemExit: no license"
    ):
        find_method("leaves")
    assert find_method("vcd").name == "vcd"


def test_a_hiding_folder_is_named(monkeypatch, tmp_path):
    (tmp_path / "hidden_method").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("hidden", "hidden_method:METHOD", method_registry.ENTRY_POINTS)
    monkeypatch.setattr(method_registry, "installed_entry_points", lambda group: [entry])
    with pytest.raises(SettingsError, match=rf"\(found at {tmp_path}/hidden_method\): AttributeError"):
        find_method("hidden")
    sys.modules.pop("hidden_method", None)


def test_random_answers_of_asked_questions_do_not_depend_on_their_place(student):
    asked = [Question(text=f"what is {word}?", images=()) for word in ("seen", "here", "there", "it")]
    decoding = choose_decoding("nucleus", {"temperature": 4.0}, max_new_tokens=4)

    def answers(some, size):
        return [one.text for one in answer_questions(student, some, decoding, batch_size=size, progress=Silent())]

    together = answers(asked, 4)
    assert together == answers(asked[::-1], 2)[::-1] == [text for one in asked for text in answers([one], 1)]
    assert len(set(together)) > 1

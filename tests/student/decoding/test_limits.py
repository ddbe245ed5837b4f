"""Questions that cannot be answered, and non-finite logits or scores, are reported with the question's id."""

import math
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from decoded import questions, tokens
from medalign.errors import InputError, MedalignError, SettingsError
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import save_adapter
from medalign.student.decoding import choose_decoding, decodings, method_calls, method_registry
from medalign.student.decoding.core.branch import Branch
from medalign.student.decoding.generation import answer_batch, generate_answers
from medalign.student.inspection.question_attention import question_attention
from medalign.student.loading.student_loading import load_student, open_student
from safetensors.torch import load_file, save_file
from students import adapter_record, sample, trainable

GREEDY = choose_decoding("greedy", max_new_tokens=4)


@pytest.fixture(scope="module")
def student(student_folder):
    return open_student(student_folder, layers=(), rotation="none")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 4)


def float_settings():
    for name, method in sorted(decodings().items()):
        for item in fields(method.settings):
            if "float" in str(item.type) or isinstance(getattr(method.settings(), item.name), float):
                yield name, item.name


@pytest.mark.parametrize(("name", "key"), list(float_settings()))
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_infinite_negative_or_nan_settings_are_refused(name, key, value):
    with pytest.raises(SettingsError, match=key):
        choose_decoding(name, {key: value}, max_new_tokens=3)


def test_every_method_with_numeric_settings_is_tested():
    assert len(list(float_settings())) >= 25


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nucleus", {"temperature": 0}, "temperature"),
        ("nucleus", {"temperature": 1e-5}, "temperature"),
        ("vcd", {"temperature": 1e-5}, "temperature is 1e-05, below 0.001; use 0"),
        ("nucleus", {"top_p": 0}, "top_p"),
        ("nucleus", {"top_p": 1.5}, "top_p"),
        ("beam", {"num_beams": 1}, "num_beams"),
        ("pai", {"num_beams": 0}, "num_beams"),
        ("dola", {"layers": [3, 3]}, r"layers is \[3, 3\], which contains a layer twice"),
        ("vhr", {"layers": [1, 0, 1]}, "contains a layer twice"),
        ("nucleus", {"seed": -1}, "seed"),
        ("opera", {"num_candidates": 1}, "num_candidates"),
    ],
)
def test_invalid_combinations_of_settings_are_refused(name, settings, message):
    with pytest.raises(SettingsError, match=message):
        choose_decoding(name, settings, max_new_tokens=3)


@pytest.mark.parametrize("length", [0, -3])
def test_answers_need_at_least_one_token(length):
    with pytest.raises(SettingsError, match="max_new_tokens is"):
        choose_decoding("greedy", max_new_tokens=length)


def test_a_prompt_longer_than_the_positions_is_refused_before_any_answer(student, samples):
    """512 positions, one token per byte. All questions are checked before the first is answered."""
    long = sample("x" * 600, "yes")
    answered = []
    for asked, length, message in (
        (
            [*samples, long],
            4,
            r"question .x+.: the prompt has \d+ tokens, 0 of them for images\. .* 512 positions .* Shorten",
        ),
        (
            [*samples, sample("y" * 300, "no")],
            100,
            r"question 'y+': .* max_new_tokens 100, .* Pass --max-new-tokens \d+",
        ),
    ):
        decoding = choose_decoding("greedy", max_new_tokens=length)
        with pytest.raises(InputError, match=message):
            generate_answers(
                student,
                asked,
                decoding,
                batch_size=2,
                progress=Silent(),
                on_batch=lambda batch, answers: answered.append(answers),
            )
        with pytest.raises(InputError, match=message):
            answer_batch(student, asked[-1:], decoding)
    assert answered == []


def test_the_last_position_can_be_used(student):
    fits = sample("z", "no")
    length = 512 - (len(student.template(student.tokenizer, (), "z", 0).text) + 1)  # and a begin-of-sequence token
    answer_batch(student, [fits], choose_decoding("greedy", max_new_tokens=1))
    for longer, refused in ((0, False), (1, True)):
        decoding = choose_decoding("dola", {"relative_top": 1}, max_new_tokens=length + longer)
        if refused:
            with pytest.raises(InputError, match=f"--max-new-tokens {length} or less"):
                answer_batch(student, [fits], decoding)


def test_positions_include_rope_scaling(student):
    text = student.model.config.text_config
    plain = dict(text.rope_parameters)
    try:
        for rope, expected in (
            ({"rope_type": "linear", "factor": 4.0}, 2048),
            ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 512}, 1024),
            ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}, 512),
        ):
            text.rope_parameters = plain | rope
            assert student.model.max_positions == expected
    finally:
        text.rope_parameters = plain


def test_more_beams_or_candidates_than_the_vocabulary_are_refused(student, samples):
    with pytest.raises(
        SettingsError,
        match=r"num_beams is 131, .* 262 tokens, 2 for each beam, .* vocabulary has only 260\. Use at most 130",
    ):
        tokens(student, samples[:1], "beam", num_beams=131)
    assert len(tokens(student, samples[:1], "beam", num_beams=130, length=2)) == 1
    with pytest.raises(SettingsError, match=r"num_beams is 200"):
        tokens(student, samples[:1], "vcd", num_beams=200)
    with pytest.raises(SettingsError, match=r"num_candidates is 300, .* vocabulary of 260\. Use a value from 2 to 260"):
        tokens(student, samples[:1], "opera", num_candidates=300)


def test_a_weight_that_overflows_is_refused(student, samples):
    with pytest.raises(SettingsError, match=r"decode\.decay is 10\.0 and max_new_tokens is 100.*at most 0\.6"):
        tokens(student, samples[:1], "m3id", length=100, decay=10.0)


@pytest.fixture
def broken(student):
    """The student with an output layer that gives NaN for one token."""
    weight = student.model.stock.lm_head.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[7] = torch.nan
        yield student
        weight.copy_(kept)


@pytest.mark.parametrize("name", sorted(decodings()))
def test_non_finite_logits_are_refused(broken, samples, name):
    settings = {"damro": {"outliers": 3}, "opera": {"num_beams": 2, "num_candidates": 3}}.get(name, {})
    decoding = choose_decoding(name, settings, max_new_tokens=3)
    with pytest.raises(
        InputError, match=rf"question '{samples[1].question_id[:-1]}.*logits .*\({name} decoding, float32"
    ):
        answer_batch(broken, samples[1:3], decoding)


def test_the_remedy_for_float16_is_given(broken, samples):
    broken.model.half()
    try:
        with pytest.raises(InputError, match=r"float16\)\. The largest float16 value is 65,504; use --dtype bfloat16"):
            answer_batch(broken, samples[:1], GREEDY)
    finally:
        broken.model.float()


def test_the_question_with_non_finite_logits_is_named(student, samples, monkeypatch):
    """The row that was not finite is recorded, and finished samples are ignored."""
    forward = Branch._forward

    def spoilt(self, *args):
        forward(self, *args)
        if self._logits is not None and spoilt.row is not None:
            self._logits[spoilt.row, 5] = torch.inf
            self.watch.see_logits(self._logits, self.owner)
            spoilt.row = None

    spoilt.row = 2
    monkeypatch.setattr(Branch, "_forward", spoilt)
    with pytest.raises(InputError) as caught:
        answer_batch(student, samples, GREEDY)
    assert str(caught.value).startswith(f"question {samples[2].question_id!r}: logits")


def test_scores_that_overflow_are_refused(student, samples):
    decoding = choose_decoding("vcd", {"alpha": 1e39}, max_new_tokens=3)
    with pytest.raises(InputError, match=r"scores are not finite \(vcd decoding, float32\), although the logits are"):
        answer_batch(student, samples[:2], decoding)


@pytest.mark.parametrize(
    ("returned", "named"),
    [
        ([[3, 4], [5, 6]], "an object of type list"),
        (None, "an object of type NoneType"),
        (torch.zeros(2, dtype=torch.long), r"a tensor of shape \[2\]"),
        (torch.zeros(3, 4, dtype=torch.long), r"a tensor of shape \[3, 4\]"),
        (torch.zeros(2, 4, 9), r"a tensor of shape \[2, 4, 9\]"),
        (torch.zeros(2, 4), "a tensor of type float32"),
        (torch.zeros(2, 4, dtype=torch.bool), "a tensor of type bool"),
    ],
)
def test_what_a_method_returns_is_checked(student, samples, monkeypatch, returned, named):
    def answer(run, settings):
        return returned

    monkeypatch.setitem(method_registry._METHODS, "mine", replace(GREEDY.method, name="mine", answer=answer))
    expected = r"should return token ids: a tensor of integers of shape \[2, length\].*`.*answer` in .*test_limits"
    with pytest.raises(InputError, match=f"method 'mine' returned {named}, but {expected}"):
        answer_batch(student, samples[:2], replace(GREEDY, name="mine"))


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        ([9, -1, 9], r"the token id -1, but the student's vocabulary has the ids 0 to \d+\."),
        ([9, 10**6, 9], r"the token id 1000000, but the student's vocabulary has the ids 0 to \d+\."),
        ([9] * 12, r"an answer of 12 tokens, but max_new_tokens is 3 \(`run\.max_new_tokens`\)\."),
    ],
)
def test_token_ids_that_are_no_answer_are_refused(student, samples, monkeypatch, ids, named):
    def answer(run, settings):
        return torch.tensor([[9] * len(ids), ids])

    monkeypatch.setitem(method_registry._METHODS, "mine", replace(GREEDY.method, name="mine", answer=answer))
    with pytest.raises(InputError, match=f"method 'mine' returned {named} Correct .*`.*answer` in .*test_limits"):
        answer_batch(student, samples[:2], replace(GREEDY, name="mine", max_new_tokens=3))


def test_what_follows_an_end_token_is_no_answer(student, samples, monkeypatch):
    row = [9, student.tokenizer.eos_token_id] + [-100] * 9
    method = replace(GREEDY.method, name="mine", answer=lambda *_: torch.tensor([row, row]))
    monkeypatch.setitem(method_registry._METHODS, "mine", method)
    answers = answer_batch(student, samples[:2], replace(GREEDY, name="mine", max_new_tokens=3))
    assert [answer.finish for answer in answers] == ["end", "end"]


@pytest.mark.parametrize("dtype", [torch.long, torch.int32])
def test_token_ids_of_any_integer_type_and_length_are_taken(student, samples, monkeypatch, dtype):
    for length in (0, 3):
        method = replace(GREEDY.method, name="mine", answer=lambda *_, n=length: torch.full((2, n), 5, dtype=dtype))
        monkeypatch.setitem(method_registry._METHODS, "mine", method)
        assert len(answer_batch(student, samples[:2], replace(GREEDY, name="mine"))) == 2


def test_methods_are_called_in_one_place():
    """Where their results are checked."""
    root = Path(method_calls.__file__).parents[2]
    places = [path for part in ("api", "pipeline", "student", "commands") for path in (root / part).rglob("*.py")
              if re.search(r"method\.answer\(", path.read_text())]  # fmt: skip
    assert places == [Path(method_calls.__file__)]


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "rotation.safetensors"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_adapter_with_non_finite_weights_is_refused(student_folder, tmp_path, file, value):
    trained = trainable(student_folder)
    save_adapter(trained.model, adapter_record(trained), tmp_path / "adapter")
    load_student(tmp_path / "adapter", adapter=None)
    path = tmp_path / "adapter" / file
    weights = load_file(path)
    name = sorted(weights)[-1]
    weights[name].flatten()[0] = value
    save_file(weights, path)
    with pytest.raises(MedalignError, match=f"{file}: .* contains NaN or infinite values.* an earlier checkpoint"):
        load_student(tmp_path / "adapter")


def test_non_finite_attention_is_refused(student, samples):
    weight = student.model.stock.model.language_model.layers[1].self_attn.q_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] = torch.nan
        try:
            with pytest.raises(
                InputError, match=r"question .what is\?.: the student's attention is not finite \(float32"
            ):
                question_attention(student, samples[:1])
        finally:
            weight.copy_(kept)

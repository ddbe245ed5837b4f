"""Answers end at every end token: those of generation_config.json, of the tokenizer and of the template."""

import json
import shutil

import pytest
import torch
from decoded import questions, tokens
from medalign.errors import InputError, SettingsError
from medalign.student.decoding import choose_decoding
from medalign.student.decoding.generation import answer_batch
from medalign.student.inputs.collation import Collator, encode_sample, encode_text
from medalign.student.inputs.spans import IGNORED_LABEL
from medalign.student.loading.student_loading import open_student
from medalign.student.prompts.end_tokens import end_tokens
from originals import write_original
from students import byte_tokenizer, sample
from transformers import AddedToken, LlavaForConditionalGeneration

LENGTH = 12


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("images"), 4)


def copied(student_folder, folder, **generation):
    """The tiny student with other values in generation_config.json."""
    shutil.copytree(student_folder, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | generation))
    return folder


@pytest.fixture(scope="module")
def second(student_folder, samples):
    """A token that occurs in the middle of the answers to all questions."""
    student = open_student(student_folder, layers=(), rotation="none")
    generated = tokens(student, samples, "greedy", length=LENGTH)
    return generated[0][3]


def stock(folder, student, samples, **options):
    """transformers' `generate` with the folder's end tokens, on the same prompts."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    batch = Collator(pad_token_id=0, pad_left=True)([encode_sample(student, one, with_answer=False) for one in samples])
    del batch["labels"]
    with torch.inference_mode():
        rows = model.generate(**batch, do_sample=False, max_new_tokens=LENGTH, pad_token_id=0, **options)
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    found = []
    for row in rows[:, batch["input_ids"].shape[1] :].tolist():
        place = next((place for place, token in enumerate(row) if token in ends), len(row))
        found.append(row[: place + 1])
    return found


@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize("listed", ["two", "three", "one"])
def test_answers_equal_those_of_generate_with_several_end_tokens(
    student_folder, tmp_path, samples, second, beams, listed
):
    ends = {"one": second, "two": [2, second], "three": [2, second, 77]}[listed]
    folder = copied(student_folder, tmp_path / "student", eos_token_id=ends)
    student = open_student(folder, layers=(), rotation="none")
    assert student.end_tokens == {"one": (2, second), "two": (2, second), "three": (2, second, 77)}[listed]
    settings = {"num_beams": beams} if beams > 1 else {}
    ours = tokens(student, samples, "beam" if beams > 1 else "greedy", length=LENGTH, **settings)
    expected = stock(folder, student, samples, num_beams=beams, eos_token_id=list(student.end_tokens))
    assert ours == expected
    if listed == "two" and beams == 1:
        assert expected == stock(folder, student, samples)  # as the folder says by itself
        assert any(row[-1] == second and len(row) < LENGTH for row in ours)


def test_the_text_of_an_answer_stops_before_any_end_token(student_folder, tmp_path, samples, second):
    folder = copied(student_folder, tmp_path / "student", eos_token_id=[2, second])
    student = open_student(folder, layers=(), rotation="none")
    (answer,) = answer_batch(student, samples[:1], choose_decoding("greedy", max_new_tokens=LENGTH))
    (row,) = tokens(student, samples[:1], "greedy", length=LENGTH)
    assert row[-1] == second
    assert answer.text == student.tokenizer.decode(row[:-1], skip_special_tokens=True).strip()
    assert answer.forwards == len(row)


def test_opera_ends_at_every_end_token_and_equals_beam_search_without_penalty(
    student_folder, tmp_path, samples, second
):
    folder = copied(student_folder, tmp_path / "student", eos_token_id=[2, second])
    student = open_student(folder, layers=(), rotation="none")
    everything = {"num_candidates": 260, "penalty_weight": 0.0, "max_rollbacks": 0, "num_beams": 2}
    beam = tokens(student, samples[:2], "beam", length=6, num_beams=2)
    assert tokens(student, samples[:2], "opera", length=6, **everything) == beam
    rolled = {"num_beams": 2, "num_candidates": 3, "scale_factor": 400.0, "threshold": 2, "warm_up": 0}
    for row in tokens(student, samples, "opera", length=LENGTH, **rolled):
        assert not {2, second} & set(row[:-1])
    with pytest.raises(
        SettingsError, match=r"num_candidates is 2, but this student has 2 end tokens .* Use a value from 3 to 260"
    ):
        tokens(student, samples, "opera", num_beams=2, num_candidates=2)


@pytest.mark.parametrize("family", ["llava-med", "huatuo", "llava"])
def test_original_checkpoints_use_the_end_tokens_of_their_generation_config(tmp_path, family):
    folder = write_original(tmp_path / family, family).folder
    before = open_student(folder, layers=(), rotation="none")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9], "do_sample": True}))
    after = open_student(folder, layers=(), rotation="none")
    assert after.end_tokens == (before.tokenizer.eos_token_id, 7, 9)
    (folder / "generation_config.json").write_text("[")
    with pytest.raises(InputError, match=r"generation_config\.json is not valid JSON"):
        open_student(folder, layers=(), rotation="none")


@pytest.mark.parametrize("wrong", [260, -1, "2", [2, 999], [True]])
def test_invalid_end_tokens_are_refused(student_folder, wrong):
    student = open_student(student_folder, layers=(), rotation="none")
    student.model.stock.generation_config.eos_token_id = wrong
    with pytest.raises(InputError, match=r"generation_config\.json: eos_token_id is .* from 0 to 259"):
        end_tokens(student.model.stock, student.tokenizer, student.template)


CHAT_ML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chatting(student_folder, folder, template):
    """The tiny student with a chat template whose markers are not the tokenizer's end token."""
    shutil.copytree(student_folder, folder)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    model.resize_token_embeddings(262)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("template", "behind"),
    [
        (CHAT_ML, "<|im_end|>"),
        (CHAT_ML.replace("<|im_end|>\n", " </s>"), " </s>"),
        (CHAT_ML.replace("<|im_end|>\n", "\n"), "</s>"),  # none of its own: the tokenizer's
    ],
)
def test_labels_end_with_the_templates_end_token(student_folder, tmp_path, template, behind):
    student = open_student(chatting(student_folder, tmp_path / "s", template), layers=(), rotation="none")
    ids, labels = encode_text(student, sample("Is it?", "yes"), with_answer=True)
    labeled = [label for label in labels if label != IGNORED_LABEL]
    assert student.tokenizer.decode(labeled) == f"yes{behind}"
    assert labeled[-1] in student.end_tokens
    assert set(student.end_tokens) == {2, labeled[-1]}
    whole = student.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "yes"}], tokenize=False
    )
    assert student.tokenizer.decode(ids).removeprefix("<s>") == whole[: whole.index("yes")] + f"yes{behind}"

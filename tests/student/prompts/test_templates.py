"""The exact text of the prompt templates, and the positions of images and answers in their tokens."""

import pytest
from medalign.errors import SettingsError
from medalign.student.inputs.collation import encode_sample, prompt_ids
from medalign.student.inputs.spans import IGNORED_LABEL, find_images, question_rows
from medalign.student.loading.student_loading import load_student
from medalign.student.prompts.control_tokens import CUT, IMAGE_PLACEHOLDER
from medalign.student.prompts.templates import TEMPLATES, find_template
from originals import write_original
from students import byte_tokenizer, sample, write_images
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
HISTORY = (("First? ", "one"), ("Second?", "two"))
WRITTEN = {
    "plain": "IMG\nIMG\nQuestion: First? \nAnswer: one\nQuestion: Second?\nAnswer: two\nQuestion: Third?\nAnswer:",
    "vicuna_v1": SYSTEM + "USER: IMG\nIMG\nFirst? ASSISTANT: one</s>USER: Second? ASSISTANT: two</s>"
    "USER: Third? ASSISTANT:",
    "huatuo_v1": SYSTEM + "<|user|>: IMG\nIMG\nFirst? <|assistant|>: one</s><|user|>: Second? <|assistant|>: two</s>"
    "<|user|>: Third? <|assistant|>:",
    "mistral_instruct": "[INST] IMG\nIMG\nFirst? [/INST] one </s>[INST] Second? [/INST] two </s>[INST] Third? [/INST]",
    "huatuo": "<|user|>\nIMG\nIMG\nFirst?\n<|assistant|>\none \n<|user|>\nSecond?\n<|assistant|>\ntwo \n"
    "<|user|>\nThird?\n<|assistant|>\n",
}
WITH_BOS = {"plain", "vicuna_v1", "huatuo_v1", "mistral_instruct"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    return {family: write_original(root / family, family).folder for family in ("llava-med", "huatuo")}


@pytest.mark.parametrize("name", list(WRITTEN))
def test_exact_text_with_two_earlier_turns_and_two_images(name):
    prompt = find_template(name)(byte_tokenizer(), HISTORY, "Third?", 2)
    assert prompt.text.replace(IMAGE_PLACEHOLDER, "IMG") == WRITTEN[name]
    assert prompt.add_special_tokens == (name in WITH_BOS)
    assert prompt.answer_prefix == ("" if name == "huatuo" else " ")


def test_every_template_is_tested():
    assert {*WRITTEN, "chat"} == set(TEMPLATES)
    with pytest.raises(SettingsError, match="choose from: chat, huatuo, huatuo_v1, mistral_instruct, plain, vicuna_v1"):
        find_template("vicuna")


def spans(folder, template, tmp_path, count=1, history=()):
    """Image starts, question rows and labeled positions of a sample with a template."""
    student = load_student(folder, template=template)
    paths = write_images(tmp_path / "images", [(24, 24)] * count)
    encoded = encode_sample(student, sample("What is it?", "yes: no", *paths, history=history), with_answer=True)
    ids = encoded.input_ids[None]
    found = find_images(ids, student.model.image_token_id, student.model.patches)
    labels = encoded.labels[None]
    rows = question_rows(ids, (ids >= 0).long(), labels, found, student.model.image_token_id)
    read = student.tokenizer.decode
    asked = [read(ids[0, row]) for row in rows]
    return student, found.positions[:, 0].tolist(), asked, read(ids[0, labels[0] != IGNORED_LABEL])


@pytest.mark.parametrize(
    ("family", "template", "start"),
    [
        ("llava-med", "vicuna_v1", 34),  # the paper's training of LLaVA-Med, begin-of-sequence token included
        ("huatuo", "huatuo_v1", 33),  # the paper's training of HuatuoGPT-Vision, which has no such token
        ("llava-med", "mistral_instruct", 5),
        ("huatuo", "huatuo", 5),
    ],
)
def test_image_spans_start_at_the_positions_of_the_real_tokenizers(folders, tmp_path, family, template, start):
    """The tiny tokenizers give these prompts as many tokens as those of Mistral and Qwen2 (34 and 33)."""
    student, starts, asked, answer = spans(folders[family], template, tmp_path)
    assert starts == [start]
    end = {"vicuna_v1": "ASSISTANT:", "huatuo_v1": "<|assistant|>:", "mistral_instruct": "[/INST]"}.get(template, ">\n")
    (question,) = asked
    assert "What is it?" in question
    assert question.endswith(end)
    assert "yes" not in question
    assert answer.strip() == f"yes: no{student.tokenizer.eos_token}"


@pytest.mark.parametrize("family", ["llava-med", "huatuo"])
@pytest.mark.parametrize("template", ["vicuna_v1", "huatuo_v1", "mistral_instruct", "huatuo"])
def test_several_images_and_turns_keep_their_positions(folders, tmp_path, family, template):
    student, starts, asked, answer = spans(folders[family], template, tmp_path, 3, (("Which side?", "no: left"),))
    assert len(starts) == 3
    newline = starts[1] - starts[0] - student.model.patches
    assert starts[2] - starts[1] == starts[1] - starts[0]
    assert newline in (1, 2)  # SentencePiece adds a space before it
    for text in asked:
        assert "Which side?" in text
        assert "no: left" in text
        assert "What is it?" in text
    assert answer.strip().startswith("yes: no")


def test_the_begin_of_sequence_token_is_added_as_in_the_original_models(folders):
    """Once in mistral_instruct and vicuna_v1 for LLaVA-Med; never for HuatuoGPT-Vision."""
    for family, template, expected in (
        ("llava-med", "mistral_instruct", 1),
        ("llava-med", "vicuna_v1", 1),
        ("huatuo", "huatuo_v1", 0),
        ("huatuo", "huatuo", 0),
    ):
        student = load_student(folders[family], template=template)
        ids = prompt_ids(student, student.template(student.tokenizer, (), "What is it?", 1))
        assert ids.count(1 if family == "llava-med" else student.tokenizer.eos_token_id) == expected


def test_families_have_a_default_template(folders):
    assert load_student(folders["llava-med"]).template_name == "mistral_instruct"
    assert load_student(folders["huatuo"]).template_name == "huatuo"  # not its tokenizer's chat template
    assert load_student(folders["huatuo"], template="vicuna_v1").template_name == "vicuna_v1"


@pytest.mark.parametrize("name", [*WRITTEN, "chat"])
def test_the_placeholder_in_user_text_is_not_an_image(name):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    text = f"a{IMAGE_PLACEHOLDER}b <image>"
    prompt = find_template(name)(tokenizer, ((text, text),), text, 1)
    assert prompt.text.count(IMAGE_PLACEHOLDER) == 1
    assert prompt.text.replace(CUT, "").count("ab <image>") == 3


def test_answer_tokens_do_not_depend_on_separate_tokenization(folders):
    """Prompt and answer are tokenized separately; together they must equal the tokens of the full text."""
    for family in folders:
        student = load_student(folders[family], template="vicuna_v1")
        tokenizer = student.tokenizer
        prompt = student.template(tokenizer, (), "What is it?", 0)
        apart = [
            *prompt_ids(student, prompt),
            *tokenizer(prompt.answer_prefix + "yes", add_special_tokens=False).input_ids,
        ]
        assert apart == tokenizer(prompt.text + " yes").input_ids


def test_no_space_is_added_for_a_tokenizer_that_always_adds_one():
    """Llama tokenizers of older conversions add a space before every text; a second space would be another token."""
    words = {"<unk>": 0, "▁": 1, "▁yes": 2, "▁ASSISTANT:": 3, "</s>": 4}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")
    assert tokenizer("ASSISTANT: yes")["input_ids"] == [3, 2]
    assert tokenizer(" yes")["input_ids"] == [1, 2]
    assert find_template("vicuna_v1")(tokenizer, (), "What?", 0).answer_prefix == ""


def test_chat_templates_of_multimodal_models_get_parts():
    """They loop over a list of parts; with a plain string they would silently omit the question."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {% for part in m['content'] if part['type'] == 'text' %}"
        "{{ part['text'] }}{% endfor %} {% endfor %}"
    )
    prompt = find_template("chat")(tokenizer, (("Before?", "yes"),), "Now?", 1)
    assert prompt.text == f"user: {IMAGE_PLACEHOLDER}\nBefore? assistant: yes user: Now? "
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(SettingsError, match="omits the question"):
        find_template("chat")(tokenizer, (), "Now?", 1)
    tokenizer.chat_template = None
    with pytest.raises(SettingsError, match="has no chat template"):
        find_template("chat")(tokenizer, (), "Now?", 1)

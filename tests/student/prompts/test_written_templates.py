"""The chat template of a written folder gives stock transformers the prompts that the student was trained with."""

import pytest
from chats import messages_of, write_plain_folder
from jinja2 import TemplateError
from medalign.student.inputs.collation import prompt_ids
from medalign.student.loading.student_loading import open_student
from medalign.student.prompts.control_tokens import leading_ids
from medalign.student.prompts.templates import TEMPLATES
from medalign.student.prompts.written_templates import written_template
from students import sample
from transformers import AutoProcessor, AutoTokenizer

NAMES = sorted(TEMPLATES.keys() - {"chat"})
HISTORY = (("Which side? ", "left"), ("A mass?", " no"))


@pytest.fixture(scope="module", params=["bytes", "sentencepiece"])
def folder(request, student_folder, tmp_path_factory):
    return write_plain_folder(request.param, student_folder, tmp_path_factory.mktemp("written") / request.param)


def stock_text(folder, name, messages, *, prompt):
    processor = AutoProcessor.from_pretrained(folder)
    template = written_template(name, processor.tokenizer)
    return processor.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=prompt)


@pytest.mark.parametrize("history", [(), HISTORY], ids=["first", "later"])
@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_stock_transformers_render_the_prompt_of_training(folder, name, images, history):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = TEMPLATES[name](tokenizer, history, "Is there a mass?", images)
    begin = tokenizer.bos_token if expected.add_special_tokens and tokenizer.bos_token else ""
    text = stock_text(folder, name, messages_of("Is there a mass?", images, history), prompt=True)
    assert text == begin + expected.text.replace("\ufdd0", "<image>")


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_ends_as_in_training(folder, name):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = TEMPLATES[name](tokenizer, HISTORY, "Is there a mass?", 1)
    begin = tokenizer.bos_token if expected.add_special_tokens and tokenizer.bos_token else ""
    text = stock_text(folder, name, messages_of("Is there a mass?", 1, HISTORY, "yes"), prompt=False)
    spaced = "" if name == "huatuo" else " "  # which tokenizers of Llama add by themselves before every text
    assert text == begin + expected.text.replace("\ufdd0", "<image>") + spaced + "yes" + tokenizer.eos_token


@pytest.mark.parametrize("name", NAMES)
def test_the_ids_of_a_processor_are_those_of_training(folder, name):
    """With images expanded and one begin-of-sequence token."""
    student = open_student(folder, layers=(1,), rotation="none", template=name)
    asked = sample("Is there a mass?", "")
    ours = prompt_ids(student, student.template(student.tokenizer, (), asked.question, 1))
    processor = AutoProcessor.from_pretrained(folder)
    (ids,) = processor.apply_chat_template(
        messages_of(asked.question, 1),
        chat_template=written_template(name, processor.tokenizer),
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
    )["input_ids"]
    if name == "huatuo":  # whose tokenizer adds no begin-of-sequence token; a processor adds that of these
        ours = [*leading_ids(student.tokenizer), *ours]
    assert list(ids) == ours


TEXT_ALONE = {  # as of language models
    "text": "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
    "parts": "{% for m in messages %}[{{ m['role'] }}]{% for c in m['content'] %}{{ c['text'] }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}",
}


@pytest.mark.parametrize("history", [(), HISTORY], ids=["first", "later"])
@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize("form", TEXT_ALONE)
def test_a_chat_template_for_text_takes_images_too(folder, form, images, history):
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.chat_template = TEXT_ALONE[form]
    expected = TEMPLATES["chat"](processor.tokenizer, history, "Is there a mass?", images)
    written = written_template("chat", processor.tokenizer)
    messages = messages_of("Is there a mass?", images, history)
    text = processor.apply_chat_template(messages, chat_template=written, tokenize=False, add_generation_prompt=True)
    assert text == expected.text.replace("\ufdd0", "<image>")
    plain = [message | {"content": message["content"][-1]["text"]} for message in messages]
    if images == 0:
        assert (
            processor.tokenizer.apply_chat_template(
                plain, chat_template=written, tokenize=False, add_generation_prompt=True
            )
            == text
        )
    processor.tokenizer.chat_template = written
    assert TEMPLATES["chat"](processor.tokenizer, history, "Is there a mass?", images).text == expected.text
    assert written_template("chat", processor.tokenizer) == written


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", {"default": TEXT_ALONE["text"]}])
def test_other_chat_templates_are_left_as_they_are(folder, template):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    assert written_template("chat", tokenizer) == template


def test_other_roles_are_refused(folder):
    with pytest.raises(TemplateError, match="not system"):
        stock_text(folder, "vicuna_v1", [{"role": "system", "content": "Be brief."}], prompt=True)

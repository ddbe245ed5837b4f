"""A folder's chat template gives the ids of transformers' processor; user text never becomes a control token."""

import json
import shutil

import pytest
from chats import messages_of, write_plain_folder
from medalign.errors import InputError, SettingsError
from medalign.student.families.bases import written_tokenizer
from medalign.student.families.original.original_format import find_family
from medalign.student.inputs.collation import encode_text, prompt_ids
from medalign.student.inputs.spans import IGNORED_LABEL
from medalign.student.loading.student_loading import load_student, open_student
from medalign.student.prompts.control_tokens import control_tokens
from originals import write_original
from students import sample, write_images
from transformers import AutoProcessor

LLAVA = (  # like llava-hf: no begin-of-sequence token, images first, no end token after an answer
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
INSTRUCT = (  # with a begin-of-sequence token, and images among the parts
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {% endif %}"
    "{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}"
    "{{ ' [/INST]' if m['role'] == 'user' else eos_token }}{% endfor %}"
)
ROLES = (  # the answer's role comes after an image
    "{% for m in messages %}<{{ m['role'] }}>{% for c in m['content'] %}"
    "{{ c['text'] if c['type'] == 'text' else '<image> ' }}{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEMPLATES = {"llava": LLAVA, "instruct": INSTRUCT, "roles": ROLES}
HISTORY = (("Which side?", "left"), ("A mass?", "no"))


@pytest.fixture(scope="module", params=["bytes", "sentencepiece"])
def plain_folder(request, student_folder, tmp_path_factory):
    return write_plain_folder(request.param, student_folder, tmp_path_factory.mktemp("plain") / request.param)


def put_jinja(folder, template):
    (folder / "chat_template.jinja").write_text(template)


def put_in_tokenizer_config(folder, template):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))


def put_json(folder, template):
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


def put_both(folder, template):
    put_json(folder, template)
    put_jinja(folder, "another: " + template)


def put_named(folder, template):
    put_jinja(folder, template)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("another: " + template)


def put_in_processor_config(folder, template):
    path = folder / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    put_jinja(folder, "another: " + template)


PLACES = (put_jinja, put_in_tokenizer_config, put_json, put_both, put_named, put_in_processor_config)


def of_processor(folder, question, images, history=()):
    """Ids of a conversation from transformers' processor, with images expanded."""
    processor = AutoProcessor.from_pretrained(folder)
    messages = messages_of(question, images, history)
    template = None if processor.chat_template else processor.tokenizer.chat_template
    (ids,) = processor.apply_chat_template(
        messages, chat_template=template, tokenize=True, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    return list(ids)


def ours(student, question, images, history=()):
    return prompt_ids(student, student.template(student.tokenizer, history, question, images))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the processor leaves files open
@pytest.mark.parametrize("name", list(TEMPLATES))
@pytest.mark.parametrize("put", PLACES)
def test_prompts_equal_those_of_the_processor(plain_folder, tmp_path, put, name):
    folder = tmp_path / "student"
    shutil.copytree(plain_folder, folder)
    put(folder, TEMPLATES[name])
    student = load_student(folder, template="chat")
    for images, history in ((0, ()), (1, ()), (2, ()), (1, HISTORY)):
        expected = of_processor(folder, "What is the image?", images, history)
        assert ours(student, "What is the image?", images, history) == expected
        assert expected.count(student.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_control_tokens_in_user_text_remain_text(plain_folder, tmp_path, name):
    folder = tmp_path / "student"
    shutil.copytree(plain_folder, folder)
    put_jinja(folder, TEMPLATES[name])
    typed = "a <image> b</s><s> <pad> <<image>> ASSISTANT"
    for template in ("chat", "vicuna_v1", "huatuo"):
        student = load_student(folder, template=template)
        special = {*student.tokenizer.all_special_ids, student.model.image_token_id}
        for images in (0, 1):
            known = [one for one in ours(student, "x", images, (("y", "z"),)) if one in special]
            found = ours(student, typed, images, ((typed, typed),))
            assert [one for one in found if one in special] == known
            text = student.tokenizer.decode([one for one in found if one not in special])
            assert text.replace(" ", "").count(typed.replace(" ", "")) == 3


@pytest.mark.parametrize("template", ["chat", "vicuna_v1"])
def test_end_tokens_in_a_training_answer_remain_text(plain_folder, tmp_path, template):
    folder = tmp_path / "student"
    shutil.copytree(plain_folder, folder)
    put_jinja(folder, ROLES)
    student = load_student(folder, template=template)
    _, labels = encode_text(student, sample("Is it?", "yes</s> and <image>"), with_answer=True)
    labeled = [label for label in labels if label != IGNORED_LABEL]
    assert labeled[-1] == student.tokenizer.eos_token_id
    assert student.tokenizer.eos_token_id not in labeled[:-1]
    assert student.model.image_token_id not in labeled


def test_questions_without_control_tokens_keep_their_ids(plain_folder):
    """Text without control tokens is tokenized in one piece."""
    student = load_student(plain_folder, template="vicuna_v1")
    text = "a < b > c [x] 3<5 </ s>"
    ids = ours(student, text, 0)
    prompt = student.template(student.tokenizer, (), text, 0)
    assert ids == student.tokenizer(prompt.text)["input_ids"]
    assert "</s>" in control_tokens(student.tokenizer)


def test_unusable_templates_are_reported(plain_folder, tmp_path):
    folder = tmp_path / "student"
    shutil.copytree(plain_folder, folder)
    for template, message in (
        ("{{ raise_exception('no users here') }}", "cannot be used: no users here"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "omits the question"),
        ("{% for m in messages %}{{ m['content'].text() }}{% endfor %}", "cannot be used"),
        ("{% for %}", "cannot be used"),
    ):
        put_jinja(folder, template)
        with pytest.raises(SettingsError, match=message):
            open_student(folder, layers=(), rotation="none", template="chat")
    (folder / "chat_template.jinja").unlink()
    put_named(folder, LLAVA)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(SettingsError, match="multiple chat templates"):
        open_student(folder, layers=(), rotation="none", template="chat")
    (folder / "chat_template.json").write_text("{")
    with pytest.raises(InputError, match=r"chat_template\.json is not valid JSON"):
        open_student(folder, layers=(), rotation="none")


def test_template_origins(student_folder, plain_folder, tmp_path):
    assert load_student(student_folder).template_origin == "guess"
    assert load_student(student_folder, template="vicuna_v1").template_origin == "option"
    folder = tmp_path / "student"
    shutil.copytree(student_folder, folder)
    put_json(folder, LLAVA)
    student = load_student(folder)
    assert (student.template_name, student.template_origin) == ("chat", "folder")
    if plain_folder.name == "sentencepiece":  # converted from a LLaVA with a different language model than LLaVA-1.5
        assert load_student(plain_folder).template_origin == "guess"
        record = json.loads((plain_folder / "medalign-student.json").read_text())
        shutil.copytree(plain_folder, tmp_path / "published")
        (tmp_path / "published" / "medalign-student.json").write_text(json.dumps(record | {"known_rows": 32000}))
        assert load_student(tmp_path / "published").template_origin == "record"


@pytest.mark.parametrize(
    ("config", "name", "template"),
    [
        ({"vocab_size": 64000, "mm_vision_tower": "openai/x"}, "HuatuoGPT-Vision-34B", "huatuo"),  # Yi-1.5-34B
        ({"mm_vision_tower": "./vit/clip_vit_large_patch14_336"}, "HuatuoGPT-Vision-34B", "huatuo"),
        ({"vocab_size": 32000, "mm_vision_tower": "openai/clip-vit-large-patch14-336"}, "LLaVA-1.5", "vicuna_v1"),
        ({}, "LLaVA-1.5", "vicuna_v1"),
    ],
)
def test_huatuo_34b_is_a_llama_with_the_huatuo_template(config, name, template):
    """Its authors load it as LlavaLlamaForCausalLM and prompt it like the 7B (HuatuoGPT-Vision, cli.py)."""
    family = find_family({"architectures": ["LlavaLlamaForCausalLM"], **config})
    assert (family.name, family.template) == (name, template)


def test_the_template_of_a_llava_with_an_unknown_llama_is_a_guess(tmp_path):
    found = load_student(write_original(tmp_path / "llava", "llava").folder)  # with a small vocabulary
    assert (found.template_name, found.template_origin) == ("vicuna_v1", "guess")
    assert find_family({"architectures": ["LlavaLlamaForCausalLM"]}).knows(32000)
    assert load_student(write_original(tmp_path / "med", "llava-med").folder).template_origin == "family"
    paths = write_images(tmp_path / "images", [(24, 24)])
    assert encode_text(found, sample("x", "y", *paths), with_answer=False)[0]


def test_the_written_tokenizer_keeps_the_processors_template(student_folder, tmp_path):
    """An export has one tokenizer, and stock transformers must prompt it like the base."""
    folder = tmp_path / "student"
    shutil.copytree(student_folder, folder)
    put_json(folder, LLAVA)
    assert written_tokenizer(folder).chat_template == LLAVA


@pytest.mark.parametrize("times", [2, 3])
def test_a_template_that_repeats_the_question_is_refused(student_folder, tmp_path, times):
    folder = tmp_path / "student"
    shutil.copytree(student_folder, folder)
    put_jinja(folder, "{% for m in messages %}" + "{{ m.content }}" * times + "{% endfor %}")
    student = load_student(folder, template="chat")
    with pytest.raises(SettingsError, match=rf"writes {times} images, but the question has 1\. Set student.templ"):
        ours(student, "What?", 1)

"""Invalid values in a base's config.json or chat template are reported in one error that names them."""

import json
import shutil

import pytest
from medalign.errors import InputError, SettingsError
from medalign.student.loading.student_loading import load_student, open_student


@pytest.fixture
def folder(student_folder, tmp_path):
    return shutil.copytree(student_folder, tmp_path / "base")


@pytest.mark.parametrize("value", [None, "x", [], 1.5, True, {}])
@pytest.mark.parametrize(
    "field",
    ["image_token_index", "image_token_id", "vision_config.image_size", "vision_config.patch_size"],
)
def test_invalid_integers_in_config_json_are_refused(folder, field, value):
    config = json.loads((folder / "config.json").read_text())
    *outer, name = field.split(".")
    section = config[outer[0]] if outer else config
    if name == "image_token_id":
        section.pop("image_token_index")
    section[name] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json") as caught:
        load_student(folder)
    assert name.replace("index", "id") in str(caught.value) or name in str(caught.value)


@pytest.mark.parametrize("section", ["text_config", "vision_config"])
def test_models_with_too_many_layers_are_refused_before_they_are_built(folder, section):
    config = json.loads((folder / "config.json").read_text())
    config[section]["num_hidden_layers"] = 10**22
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"config\.json: {section}\.num_hidden_layers is 1000"):
        load_student(folder)


TEMPLATES = {
    "a range that is too large": "{% for i in range(10**9) %}x{% endfor %}",
    "a division by zero": "{{ 1 // 0 }}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a missing key": "{{ {}['x']['y'] }}",
    "an index out of range": "{{ messages[9].content }}",
    "a filter without items": "{{ messages | batch(0) | list }}",
    "a number that is too large to print": "{{ 10 ** 5000 }}",
    "a format of the wrong type": "{{ '%d' % 'x' }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_errors_in_a_chat_template_are_reported(folder, name):
    (folder / "chat_template.jinja").write_text(TEMPLATES[name])
    with pytest.raises(
        SettingsError, match=r"chat template .*Set student\.template to another|set student\.template"
    ) as caught:
        open_student(folder, layers=(), rotation="none", template="chat")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500

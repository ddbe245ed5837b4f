"""A student is identified by the files that are loaded and by its prompt; other files in its folders never matter."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from medalign.errors import InputError, MedalignError
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import add_lora, save_adapter
from medalign.student.families.bases import fingerprint_base, read_prompt_identity
from medalign.student.folders.convert import convert_original
from medalign.student.folders.export import export_adapter
from medalign.student.folders.init import init_student
from medalign.student.loading.adapter_loading import describe_adapter
from medalign.student.loading.student_loading import load_student, open_student
from medalign.student.metrics.reports.transformer import load_pretrained
from originals import save_weights, write_original
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from students import LAYER, adapter_record, tiny_config, trainable, write_tiny_student
from transformers import AutoModelForCausalLM, LlamaForCausalLM, LlavaForConditionalGeneration

CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A base, and an adapter whose LoRA is far from zero."""
    folder = tmp_path_factory.mktemp("plain")
    write_tiny_student(folder / "base")
    train(folder / "base", folder / "adapter")
    return folder


@pytest.fixture
def folders(plain, tmp_path):
    """A copy of both, to be damaged."""
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    return tmp_path


def train(base, out, **changes):
    student = trainable(base)
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name or "rotation" in name:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    record = replace(adapter_record(student), prompt=student.prompt, **changes)
    save_adapter(student.model, record, out)


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(path, function):
    tensors = load_file(path)
    function(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def first_weight(folder):
    return load_student(folder).model.llava.get_input_embeddings().weight[0, :4]


# Files that are loaded


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("shards", [1, 2])
def test_fingerprint_covers_the_files_that_transformers_loads(folders, kind, shards):
    """Weights of another model next to model.safetensors: shards with their index, a .bin, shards of .bin."""
    base = folders / "base"
    expected = fingerprint_base(base)
    tensors = load_file(base / "model.safetensors")
    if (kind, shards) == ("safetensors", 1):  # only the shard: with an index, one folder has more files
        (base / "model.safetensors").rename(base / "model-00001-of-00001.safetensors")
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
        (base / "model.safetensors.index.json").write_text(json.dumps(index))
        save_weights({name: value + 1 for name, value in tensors.items()}, base, kind="bin")
    else:
        save_weights({name: value + 1 for name, value in tensors.items()}, base, kind=kind, shards=shards)
    stock = LlavaForConditionalGeneration.from_pretrained(base).get_input_embeddings().weight[0, :4]
    assert torch.equal(stock, tensors["language_model.model.embed_tokens.weight"][0, :4])
    assert torch.equal(first_weight(base), stock)
    assert fingerprint_base(base) == expected == load_student(base).base_fingerprint


def test_a_stale_index_without_shards_is_ignored(folders):
    """`save_pretrained` of a smaller model leaves the index of earlier shards behind."""
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folders / "base" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_student(folders / "base").base_fingerprint == fingerprint_base(folders / "base")


def test_original_folders_use_the_same_file_order(tmp_path):
    original = write_original(tmp_path / "model", "llava-med")
    expected = fingerprint_base(original.folder)
    other = {name: value + 1 for name, value in original.tensors.items()}
    save_weights(other, original.folder, shards=2)
    save_weights(other, original.folder, kind="bin")
    assert fingerprint_base(original.folder) == expected
    table = original.tensors["model.embed_tokens.weight"]
    assert torch.equal(first_weight(original.folder), table[0, :4])


def write_stray_adapter(folder):
    """peft's files next to a base, which `from_pretrained` applies."""
    LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM").save_pretrained(folder)
    name = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{}.weight"
    tensors = {name.format("A"): torch.ones(2, 64), name.format("B"): torch.ones(64, 2)}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def test_an_adapter_in_a_base_folder_is_refused(folders):
    write_stray_adapter(folders / "base")
    for read in (load_student, fingerprint_base):
        with pytest.raises(
            InputError, match=r"contains a base and also adapter_config.json, adapter_model.safetensors"
        ):
            read(folders / "base")


def test_an_adapter_is_refused_in_original_folders_language_models_and_towers(tmp_path, folders):
    original = write_original(tmp_path / "model", "huatuo").folder
    write_stray_adapter(original)
    with pytest.raises(InputError, match="transformers would apply that adapter silently"):
        load_student(original)
    LlamaForCausalLM(tiny_config().text_config).save_pretrained(tmp_path / "llm")
    for file in (folders / "base").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "llm")
    init_student(tmp_path / "llm", "tiny", tmp_path / "made", image_tokens=4, progress=Silent())
    write_stray_adapter(tmp_path / "llm")
    with pytest.raises(InputError, match="transformers would apply that adapter silently"):
        init_student(tmp_path / "llm", "tiny", tmp_path / "again", image_tokens=4, progress=Silent())
    with pytest.raises(InputError, match="transformers would apply that adapter silently"):
        load_pretrained(AutoModelForCausalLM, tmp_path / "llm")  # as report metrics load their models


@pytest.mark.parametrize("field", ["transformers_weights", "quantization_config"])
def test_config_fields_that_load_other_weights_are_refused(folders, field):
    """A field of config.json that makes transformers read other weight files."""
    shutil.copy(folders / "base" / "model.safetensors", folders / "base" / "other.safetensors")
    change_tensors(folders / "base" / "other.safetensors", lambda tensors: [v.add_(1) for v in tensors.values()])
    change(folders / "base" / "config.json", **{field: "other.safetensors"})
    with pytest.raises(InputError, match=f"sets {field}, which is not supported"):
        load_student(folders / "base")


class Evil:
    def __reduce__(self):
        return (os.system, ("touch was-here",))


def test_a_pickle_with_code_is_refused_without_running_it(folders, monkeypatch):
    monkeypatch.chdir(folders)
    (folders / "base" / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Evil()}, folders / "base" / "pytorch_model.bin")
    for read in (load_student, fingerprint_base):
        with pytest.raises(InputError, match=r"pytorch_model.bin was refused: .* could run code"):
            read(folders / "base")
    assert not (folders / "was-here").exists()


# Values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("original", [False, True])
def test_non_finite_weights_are_refused(tmp_path, folders, original, value):
    base = write_original(tmp_path / "original", "llava-med").folder if original else folders / "base"
    name = next(name for name in load_file(base / "model.safetensors") if name.endswith("layers.1.mlp.up_proj.weight"))
    change_tensors(base / "model.safetensors", lambda tensors: tensors[name].view(-1).__setitem__(-1, value))
    with pytest.raises(InputError, match=r"1 tensor contains NaN or infinite values .*layers.1.mlp.up_proj"):
        load_student(base)


def test_a_precision_too_narrow_for_the_weights_is_refused(folders):
    path = folders / "base" / "model.safetensors"
    change_tensors(path, lambda tensors: next(iter(tensors.values())).view(-1).__setitem__(0, 1e6))
    load_student(folders / "base")
    load_student(folders / "base", dtype="bfloat16")
    with pytest.raises(InputError, match=r"NaN or infinite values as float16"):
        load_student(folders / "base", dtype="float16")


def test_a_merged_weight_that_overflows_is_not_exported(folders):
    change_tensors(
        folders / "adapter" / "adapter_model.safetensors", lambda tensors: [v.mul_(3e3) for v in tensors.values()]
    )
    out = folders / "out"
    with pytest.raises(MedalignError, match="NaN or infinite: no float16 model was written"):
        export_adapter(folders / "adapter", out, base=None, dtype="float16", evaluations=(), progress=Silent())
    assert not out.exists()


# LoRA


def without_half(tensors):
    for name in sorted(tensors)[::2]:
        del tensors[name]


def rename_one(tensors):
    name = sorted(tensors)[0]
    tensors[name.replace("layers.0", "layers.9")] = tensors.pop(name)


def one_more(tensors):
    name = sorted(tensors)[0]
    tensors[name.replace("layers.0", "layers.9")] = tensors[name].clone()


def another_shape(tensors):
    name = sorted(tensors)[0]
    tensors[name] = tensors[name][:2].contiguous()


def not_finite(tensors):
    tensors[sorted(tensors)[0]].view(-1)[3] = float("nan")


def integers(tensors):
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].to(torch.int8)


TENSORS = {
    without_half: "28 of 56 parameters missing",
    rename_one: r"1 of 56 parameters missing .* 1 unexpected",
    one_more: r"student: 1 unexpected .*layers\.9",
    another_shape: r"lora_A.weight has shape \(2, 96\), but the student needs \(4, 96\)",
    not_finite: "contains NaN or infinite values",
    integers: "is stored as int8",
}


@pytest.mark.parametrize("harm", TENSORS, ids=lambda harm: harm.__name__)
def test_lora_is_loaded_as_strictly_as_w(folders, harm):
    change_tensors(folders / "adapter" / "adapter_model.safetensors", harm)
    with pytest.raises(InputError, match=TENSORS[harm]) as caught:
        load_student(folders / "adapter")
    assert "adapter_model.safetensors" in str(caught.value)


def test_a_non_finite_w_is_refused(folders):
    change_tensors(
        folders / "adapter" / "rotation.safetensors", lambda tensors: tensors[f"layers.{LAYER}"].fill_(torch.inf)
    )
    with pytest.raises(InputError, match=r"rotation.safetensors: layers.2 contains NaN or infinite values"):
        load_student(folders / "adapter")


def test_adapter_config_must_match_the_training_settings(folders):
    record, config = folders / "adapter" / "medalign.json", folders / "adapter" / "adapter_config.json"
    change(record, settings={"lora": {"rank": 4, "alpha": 8}})
    load_student(folders / "adapter")
    whole = config.read_text()
    cases = [
        (
            {"lora_alpha": 16},
            r"lora_alpha is 16, but medalign.json says that the adapter was trained with lora.lora_alpha 8",
        ),
        ({"r": 2}, r"r is 2, but medalign.json says that the adapter was trained with lora.r 4"),
        ({"r": "4"}, "r is '4', not a positive integer"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3', but medalign reads only 'LORA'"),
        (
            {"target_modules": ["q_proj"]},
            r"LoRA was trained on language_model, but adapter_config.json applies it to .*vision",
        ),
        ({"target_modules": r".*language_model.*\.(q_proj)"}, r"student: 48 unexpected .*, \.\.\.\)"),
    ]
    for values, message in cases:
        change(config, **values)
        with pytest.raises(InputError, match=message):
            load_student(folders / "adapter")
        config.write_text(whole)


@pytest.mark.parametrize(
    "values",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"alpha_pattern": {"q_proj": 99}},
        {"rank_pattern": {"q_proj": 1}},
        {"fan_in_fan_out": True},
        {"bias": "all"},
        {"bias": None},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"layers_to_transform": [0]},
        {"layer_replication": [[0, 2]]},
        {"trainable_token_indices": [3]},
        {"init_lora_weights": "pissa"},
        {"a_method_of_tomorrow": True},
        {"another_of_tomorrow": {"scale": 3}},
    ],
    ids=str,
)
def test_other_variants_of_lora_are_refused(folders, values):
    describe_adapter(folders / "adapter")
    change(folders / "adapter" / "adapter_config.json", **values)
    (name,) = values
    with pytest.raises(InputError, match=rf"adapter_config.json: {name} is .*medalign trains plain LoRA"):
        describe_adapter(folders / "adapter")


def test_fields_of_other_peft_releases_are_accepted_if_they_are_off(folders):
    before = describe_adapter(folders / "adapter")
    of_tomorrow = {"use_tomorrow": False, "tomorrow_config": None, "tomorrow_size": 16, "tomorrow_core": "core"}
    change(folders / "adapter" / "adapter_config.json", alpha_pattern=None, loftq_config=None, **of_tomorrow)
    assert describe_adapter(folders / "adapter") == before
    load_student(folders / "adapter")


def test_a_weight_file_that_is_not_in_the_record_is_refused(folders):
    change(folders / "adapter" / "medalign.json", rotation="none", layers=[])
    with pytest.raises(
        InputError, match=r"rotation.safetensors does not belong to any part that medalign.json lists as trained"
    ):
        load_student(folders / "adapter")


# How a base is prompted


def chat_template(base):
    change(base / "tokenizer_config.json", chat_template=CHAT.replace("assistant:", "doctor:"))


def generation_ends(base):
    change(base / "generation_config.json", eos_token_id=[2, 5])


def tokenizer_end(base):
    change(base / "tokenizer_config.json", eos_token="<s>")


def no_chat_template(base):
    values = json.loads((base / "tokenizer_config.json").read_text())
    del values["chat_template"]
    (base / "tokenizer_config.json").write_text(json.dumps(values))


OTHERS = {
    chat_template: r"chat_template_sha256 was \w{64}, is \w{64}",
    generation_ends: r"end_tokens was \(2,\), is \(2, 5\)",
    tokenizer_end: r"end_token was 2, is 1",
    no_chat_template: r"base_template was chat, is vicuna_v1; chat_template_sha256 was \w{64}, is None",
}


@pytest.fixture
def chatting(folders):
    """A base with a chat template, and an adapter that was trained with it."""
    change(folders / "base" / "tokenizer_config.json", chat_template=CHAT)
    student = open_student(folders / "base", layers=(LAYER,), rotation="full")
    assert student.template_name == "chat"
    shutil.rmtree(folders / "adapter")
    add_lora(student.model, base=student.base, rank=2, alpha=4, dropout=0.0)
    save_adapter(student.model, replace(adapter_record(student), prompt=student.prompt), folders / "adapter")
    return folders


@pytest.mark.parametrize("harm", OTHERS, ids=lambda harm: harm.__name__)
def test_a_base_that_is_prompted_differently_is_refused_with_both_values(chatting, harm):
    before = fingerprint_base(chatting / "base")
    harm(chatting / "base")
    assert fingerprint_base(chatting / "base") == before
    for use in (
        lambda: load_student(chatting / "adapter"),
        lambda: export_adapter(
            chatting / "adapter", chatting / "out", base=None, dtype=None, evaluations=(), progress=Silent()
        ),
    ):
        with pytest.raises(InputError, match=f"was prompted differently than .* is now: .*{OTHERS[harm]}"):
            use()


def test_an_explicit_template_does_not_depend_on_the_bases_template(folders):
    """`vicuna_v1` is the base's template. An adapter trained with `plain` still loads when that changes."""
    student = open_student(folders / "base", layers=(LAYER,), rotation="full", template="plain")
    add_lora(student.model, base=student.base, rank=2, alpha=4, dropout=0.0)
    save_adapter(student.model, replace(adapter_record(student), prompt=student.prompt), folders / "chosen")
    change(folders / "base" / "tokenizer_config.json", chat_template=CHAT)
    assert load_student(folders / "chosen").template_name == "plain"
    with pytest.raises(InputError, match="base_template was vicuna_v1, is chat"):
        load_student(folders / "adapter")


def test_records_of_older_releases_load_with_their_template(chatting):
    values = json.loads((chatting / "adapter" / "medalign.json").read_text())
    del values["prompt"]
    (chatting / "adapter" / "medalign.json").write_text(json.dumps(values | {"template": "plain"}))
    generation_ends(chatting / "base")
    assert load_student(chatting / "adapter").template_name == "plain"


@pytest.mark.parametrize("family", ["llava-med", "huatuo"])
def test_original_and_converted_folders_are_prompted_alike(tmp_path, family):
    """Including the end tokens of generation_config.json, and whether or not weights are loaded."""
    original = write_original(tmp_path / "model", family).folder
    end = json.loads((original / "config.json").read_text())["eos_token_id"]
    (original / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, 7], "do_sample": True}))
    convert_original(original, tmp_path / "converted", dtype=None, progress=Silent())
    found = [read_prompt_identity(folder, None) for folder in (original, tmp_path / "converted")]
    found += [load_student(folder).prompt for folder in (original, tmp_path / "converted")]
    assert found[0].end_tokens == tuple(sorted((end, 7)))
    assert all(identity == found[0] for identity in found)


def test_end_tokens_come_from_config_json_without_a_generation_config(folders):
    (folders / "base" / "generation_config.json").unlink()
    assert read_prompt_identity(folders / "base", None).end_tokens == (2,)
    assert load_student(folders / "adapter").prompt == read_prompt_identity(folders / "base", None)

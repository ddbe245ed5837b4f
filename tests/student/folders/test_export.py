"""Converted and exported students give the same answers in medalign, in stock transformers and with peft."""

import json
import re
from pathlib import Path

import pytest
import torch
from medalign.errors import InputError, MedalignError, SettingsError
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import AdapterRecord, add_lora, save_adapter, without_peft_warning
from medalign.student.adapters.student_record import fingerprint_adapter
from medalign.student.decoding import Decoding
from medalign.student.decoding.generation import answer_batch
from medalign.student.folders.convert import convert_original
from medalign.student.folders.export import export_adapter
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.loading.student_loading import load_student, open_student
from originals import write_original
from peft import AutoPeftModel, PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file
from students import sample, write_images, write_tiny_student
from transformers import AutoProcessor, LlavaForConditionalGeneration

LAYER = 1
STORE = {"fingerprint": "f" * 64, "teacher": "unimed-l14-336", "weights_sha256": "a" * 64, "data_use": "public"}
SETTINGS = {"alignment": {"preset": "default", "alpha": 1.0, "beta": 0.03}, "lora": {"r": 4, "lora_alpha": 8}}
DECODING = Decoding(max_new_tokens=6)
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), [(24, 24), (40, 20)])


@pytest.fixture(scope="module")
def questions(images):
    first, second = images
    return [sample("What is it?", "yes", first), sample("Which image?", "no", first, second), sample("Is the?", "yes")]


def base_folder(tmp_path, family):
    """A tiny base: an original checkpoint, or a transformers Llava, also with a chat template for text alone."""
    if family in ("transformers", "chat"):
        write_tiny_student(tmp_path / "base")
        if family == "chat":
            (tmp_path / "base" / "chat_template.jinja").write_text(CHAT)
        return tmp_path / "base"
    return write_original(tmp_path / "base", family).folder


def train(base, folder, rotation="full"):
    """An adapter whose LoRA and W are far from zero, and the student it was saved from."""
    torch.manual_seed(3)
    student = open_student(base, layers=(LAYER,), rotation=rotation)
    add_lora(student.model, base=base, rank=4, alpha=8, dropout=0.0)
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name or "rotation" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    record = AdapterRecord(
        base=str(base),
        base_fingerprint=student.base_fingerprint,
        layers=(LAYER,),
        rotation=rotation,
        template=student.template_name,
        attention_normalisation="sum",
        store=STORE,
        settings=SETTINGS,
        data_use="credentialed",
    )
    save_adapter(student.model, record, folder)
    student.model.eval()
    return student


def export(adapter, out, **options):
    chosen = {"base": None, "dtype": None, "evaluations": (), "progress": Silent()}
    return export_adapter(adapter, out, **chosen | options)


def tokens_of(student, llava, questions):
    """Greedily decoded tokens of every question, from any model that takes medalign's batches."""
    found = []
    for question in questions:
        batch = Collator(pad_token_id=student.tokenizer.pad_token_id)(
            [encode_sample(student, question, with_answer=False)]
        )
        del batch["labels"]
        ids = llava.generate(**batch, do_sample=False, max_new_tokens=6, pad_token_id=student.tokenizer.pad_token_id)
        found.append(ids[0, batch["input_ids"].shape[1] :].tolist())
    return found


def stock(folder):
    """The folder, loaded strictly with stock transformers."""
    model, loaded = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(loaded.values()), loaded
    return model.eval()


@pytest.mark.parametrize("family", ["llava-med", "huatuo"])
def test_a_converted_checkpoint_gives_the_same_answers_in_stock_transformers(tmp_path, questions, images, family):
    source = write_original(tmp_path / "model", family, shards=2)
    (source.folder / "LICENSE").write_text("terms")
    report = convert_original(source.folder, tmp_path / "out", dtype=None, progress=Silent())
    ours, converted, plain = load_student(source.folder), load_student(tmp_path / "out"), stock(tmp_path / "out")
    assert converted.template_name == ours.template_name == report.template
    assert report.added_rows == (0 if family == "huatuo" else 1)
    assert (tmp_path / "out" / "LICENSE").read_text() == "terms"
    expected = tokens_of(ours, ours.model.llava, questions)
    assert tokens_of(ours, converted.model.llava, questions) == expected == tokens_of(ours, plain, questions)
    assert len({tuple(answer) for answer in expected}) > 1
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == plain.config.image_token_id
    encoded = processor(text="<image>\nWhat?", images=Image.open(images[1]), return_tensors="pt")
    assert (encoded["input_ids"] == plain.config.image_token_id).sum() == 9
    pixels = encode_sample(ours, questions[1], with_answer=False).pixel_values[1]
    torch.testing.assert_close(encoded["pixel_values"][0], pixels, atol=0.05, rtol=0)


def test_convert_refuses_transformers_folders_and_existing_output(tmp_path):
    write_tiny_student(tmp_path / "base")
    with pytest.raises(InputError, match="needs no conversion"):
        convert_original(tmp_path / "base", tmp_path / "out", dtype=None, progress=Silent())
    source = write_original(tmp_path / "model", "huatuo").folder
    report = convert_original(source, tmp_path / "half", dtype="bfloat16", progress=Silent())
    assert (report.dtype, stock(tmp_path / "half").dtype) == ("bfloat16", torch.bfloat16)
    with pytest.raises(InputError, match="already exists"):
        convert_original(source, tmp_path / "half", dtype=None, progress=Silent())


@pytest.mark.parametrize(
    ("family", "rotation"), [("transformers", "none"), ("llava-med", "full"), ("huatuo", "train_only")]
)
def test_an_exported_student_answers_as_the_trained_student(tmp_path, questions, family, rotation):
    base = base_folder(tmp_path, family)
    trained = train(base, tmp_path / "adapter", rotation)
    expected = tokens_of(trained, trained.model.llava, questions)
    report = export(tmp_path / "adapter", tmp_path / "out")
    exported = load_student(tmp_path / "out")
    assert tokens_of(trained, exported.model.llava, questions) == expected
    assert answer_batch(exported, questions, DECODING) == answer_batch(trained, questions, DECODING)
    from_stock = tokens_of(trained, stock(tmp_path / "out"), questions)
    assert report.stock == (rotation != "full")
    assert (from_stock == expected) == report.stock
    assert (tmp_path / "out" / "rotation.safetensors").exists() == (rotation == "full")
    plain = load_student(base)
    assert tokens_of(trained, plain.model.llava, questions) != expected


@pytest.mark.parametrize(
    ("family", "rotation"), [("llava-med", "full"), ("huatuo", "none"), ("transformers", "full"), ("chat", "none")]
)
def test_the_code_on_the_card_answers_without_medalign(
    tmp_path, questions, images, monkeypatch, capsys, family, rotation
):
    trained = train(base_folder(tmp_path, family), tmp_path / "adapter", rotation)
    export(tmp_path / "adapter", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    Image.open(images[0]).convert("RGB").save(tmp_path / "out" / "chest.jpg", "PNG")  # losslessly
    monkeypatch.chdir(tmp_path / "out")
    names: dict = {}
    exec(code, names)
    assert tokens_of(trained, names["model"], questions) == tokens_of(trained, trained.model.llava, questions)
    (answer,) = answer_batch(
        trained, [sample("Is there a pleural effusion?", "", images[0])], Decoding(max_new_tokens=64)
    )
    assert capsys.readouterr().out.strip() == answer.text.strip()
    assert answer.text.strip()


def test_the_card_lists_provenance_scores_and_data_use(tmp_path):
    base = base_folder(tmp_path, "huatuo")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    trained = train(base, tmp_path / "adapter")
    (tmp_path / "adapter" / "summary.json").write_text(json.dumps({"final": {"loss_lm": 0.5}}))
    fingerprint = fingerprint_adapter(tmp_path / "adapter")
    scores = {
        "open_recall": {"value": 0.25, "count": 8},
        "closed_accuracy": {"value": None, "count": 0},
        "choice_accuracy": {"value": 0.5, "count": 4},
    }
    run = {
        "splits": ["test"],
        "questions": 12,
        "decoding": {"name": "greedy"},
        "questions_sha256": "b" * 64,
        "adapter_fingerprint": fingerprint,
    }
    evaluation = {"run": run, "scores": {"reference": scores, "strict": scores}}
    export(tmp_path / "adapter", tmp_path / "out", evaluations=[evaluation])
    card = (tmp_path / "out" / "README.md").read_text()
    for text in (
        "| scoring | open recall | questions | choice accuracy | questions |\n| --- | --- | --- | --- | --- |\n",
        "license: apache-2.0",
        "base_model: base",
        trained.base_fingerprint,
        fingerprint,
        "unimed-l14-336",
        "**credentialed** (teacher store: public)",
        "| reference | 0.25 | 8 | 0.5 | 4 |",
        "| loss_lm | 0.5000 |",
        "`huatuo`",
        "decoder layer 1 (zero-based)",
    ):
        assert text in card, text
    assert str(tmp_path) not in card
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    other = {**evaluation, "run": {**run, "adapter_fingerprint": "c" * 64}}
    with pytest.raises(InputError, match="an evaluation is of the adapter cccccccccccc"):
        export(tmp_path / "adapter", tmp_path / "again", evaluations=[other])
    assert not (tmp_path / "again").exists()


def test_export_rounds_merged_weights_once_from_float32(tmp_path):
    """A bfloat16 base exported as float32 has the exact W + s B A; exported as bfloat16, that sum rounded."""
    base = write_original(tmp_path / "base", "llava-med", dtype=torch.bfloat16).folder
    trained = train(base, tmp_path / "adapter", "none")
    layer = trained.model.llava.base_model.model.model.language_model.layers[0].self_attn.q_proj
    with torch.no_grad():
        update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    whole = layer.base_layer.weight.detach().bfloat16().float() + update
    for dtype, expected in (("float32", whole), (None, whole.bfloat16())):
        out = tmp_path / f"out-{dtype}"
        report = export(tmp_path / "adapter", out, dtype=dtype)
        assert report.dtype == (dtype or "bfloat16")
        torch.testing.assert_close(stock(out).model.language_model.layers[0].self_attn.q_proj.weight, expected)


def test_peft_loads_an_adapter_without_medalign(tmp_path, questions):
    """On the base in stock transformers; an original checkpoint is converted first."""
    base = base_folder(tmp_path, "huatuo")
    trained = train(base, tmp_path / "adapter", "train_only")
    convert_original(base, tmp_path / "converted", dtype=None, progress=Silent())
    with without_peft_warning():
        alone = PeftModel.from_pretrained(stock(tmp_path / "converted"), str(tmp_path / "adapter"))
    assert tokens_of(trained, alone.eval(), questions) == tokens_of(trained, trained.model.llava, questions)


@pytest.mark.parametrize("way", ["AutoPeftModel", "PeftModel", "load_adapter"])
def test_peft_loads_an_adapter_from_any_folder(tmp_path, monkeypatch, questions, way):
    """Trained with a relative path of the base, and loaded from another folder: peft finds the base and its class."""
    monkeypatch.chdir(tmp_path)
    write_tiny_student(tmp_path / "base")
    trained = train(Path("base"), Path("adapter"), "none")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with without_peft_warning():
        if way == "AutoPeftModel":
            alone = AutoPeftModel.from_pretrained(str(tmp_path / "adapter"))
        elif way == "PeftModel":
            alone = PeftModel.from_pretrained(stock(tmp_path / "base"), str(tmp_path / "adapter"))
        else:
            alone = stock(tmp_path / "base")
            alone.load_adapter(str(tmp_path / "adapter"))
    assert tokens_of(trained, alone.eval(), questions) == tokens_of(trained, trained.model.llava, questions)
    assert tokens_of(trained, alone.eval(), questions) != tokens_of(trained, stock(tmp_path / "base"), questions)


@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o755, 0o644), (0o770, 0o660), (0o700, 0o600)])
def test_an_adapter_is_readable_by_whom_its_folder_is(tmp_path, folder_mode, file_mode):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter").chmod(folder_mode)
    train(base_folder(tmp_path, "transformers"), tmp_path / "adapter")
    weights = list((tmp_path / "adapter").glob("*.safetensors"))
    assert {path.name for path in weights} == {"adapter_model.safetensors", "rotation.safetensors"}
    assert {path.stat().st_mode & 0o777 for path in weights} == {file_mode}


def test_an_adapter_is_not_exported_on_another_base(tmp_path):
    train(base_folder(tmp_path, "huatuo"), tmp_path / "adapter")
    other = write_original(tmp_path / "other", "huatuo", seed=9).folder
    with pytest.raises(InputError, match="was trained on a base with fingerprint"):
        export(tmp_path / "adapter", tmp_path / "out", base=other)
    with pytest.raises(InputError, match="not a finished adapter"):
        export(tmp_path / "base", tmp_path / "out")


def test_continued_training_of_an_exported_student_starts_with_its_w(tmp_path, questions):
    trained = train(base_folder(tmp_path, "transformers"), tmp_path / "adapter")
    export(tmp_path / "adapter", tmp_path / "out")
    again = open_student(tmp_path / "out", layers=(LAYER,), rotation="full")
    again.model.eval()
    assert tokens_of(trained, again.model.llava, questions) == tokens_of(trained, trained.model.llava, questions)
    for layers, rotation in (((LAYER,), "none"), ((2,), "full")):
        with pytest.raises(SettingsError, match="an exported student whose W acts at layer"):
            open_student(tmp_path / "out", layers=layers, rotation=rotation)


def set_first_value(path, value):
    """Set one value in the first tensor of a safetensors file."""
    tensors = load_file(path)
    name, tensor = next(iter(sorted(tensors.items())))
    tensor.view(-1)[0] = value
    save_file(tensors, path, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "rotation.safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_non_finite_weights_are_not_exported(tmp_path, file, value):
    base = base_folder(tmp_path, "transformers")
    train(base, tmp_path / "adapter")
    set_first_value(tmp_path / "adapter" / file, value)
    with pytest.raises(MedalignError, match="NaN or infinite"):
        export(tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merged_weight_that_overflows_float16_is_not_exported(tmp_path):
    """65504 is float16's largest value (IEEE 754 binary16)."""
    base = base_folder(tmp_path, "transformers")
    set_first_value(base / "model.safetensors", 65536.0)
    train(base, tmp_path / "adapter")
    with pytest.raises(MedalignError, match=r"no float16 model was written\. .*largest float16 value is 65504"):
        export(tmp_path / "adapter", tmp_path / "half", dtype="float16")
    assert [path.name for path in tmp_path.iterdir() if "half" in path.name] == []
    export(tmp_path / "adapter", tmp_path / "whole", dtype="bfloat16")


def test_a_conversion_that_overflows_is_not_written(tmp_path):
    source = write_original(tmp_path / "model", "huatuo")
    set_first_value(source.folder / "model.safetensors", 1e6)
    with pytest.raises(MedalignError, match=r"NaN or infinite values as float16"):
        convert_original(source.folder, tmp_path / "out", dtype="float16", progress=Silent())
    assert not (tmp_path / "out").exists()

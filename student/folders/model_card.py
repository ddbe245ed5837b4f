"""README.md of an exported student: what it is, how it may be used, and how to apply W without medalign."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yaml import YAMLError

from ... import __version__
from ...teacher_cache.store.cards.markdown import markdown_code, markdown_text
from ...teacher_cache.store.cards.store_card import NOT_STATED
from ..adapters.adapter_folder import ROTATION_FILE, AdapterRecord, StartAdapter

PARTS = {"language_model": "language model", "projector": "projector", "vision_tower": "vision tower"}
ANSWER_SCORES = ("open_recall", "closed_accuracy", "choice_accuracy")
HOW = {"lora": "LoRA, merged", "full": "all weights"}

PLAIN_USE = """\
```python
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

model = LlavaForConditionalGeneration.from_pretrained(".")
processor = AutoProcessor.from_pretrained(".")
"""

ROTATION_USE = """\
W acts only on image positions, so it cannot be merged into the weights. Stock transformers and vLLM do not apply it,
and their answers differ. medalign applies it automatically. Without medalign:

```python
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

model = LlavaForConditionalGeneration.from_pretrained(".")
processor = AutoProcessor.from_pretrained(".")
image_positions = [None]


def note(module, args, kwargs):
    is_prefill = kwargs.get("pixel_values") is not None or kwargs.get("mm_encoder_outputs")
    image_positions[0] = kwargs["input_ids"] == model.config.image_token_id if is_prefill else None


def rotate(W):
    def hook(module, args, kwargs):
        if image_positions[0] is None:
            return None
        hidden = (args[0] if args else kwargs.pop("hidden_states")).clone()
        tokens = hidden[image_positions[0]]
        hidden[image_positions[0]] = tokens + tokens @ W.to(tokens.device, tokens.dtype).T
        return (hidden, *args[1:]), kwargs

    return hook


model.model.register_forward_pre_hook(note, with_kwargs=True)
for name, W in load_file("rotation.safetensors").items():  # "layers.20": at the input of decoder layer 20
    layer = model.model.language_model.layers[int(name.removeprefix("layers."))]
    layer.register_forward_pre_hook(rotate(W), with_kwargs=True)

"""

ANSWER_USE = """\
image = {"type": "image", "image": Image.open("chest.jpg").convert("RGB")}
question = {"type": "text", "text": "Is there a pleural effusion?"}
messages = [{"role": "user", "content": [image, question]}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
).to(model.device, model.dtype)
tokens = model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```
"""

DATA_USE = {
    "public": "The training images are public.",
    "credentialed": "Trained with images that only credentialed users may access. Weights can reproduce training data: "
    "share this folder only as the data-use agreement allows, and never publish it.",
    "private": "Trained with private images. Weights can reproduce training data: do not share this folder.",
    None: "The data-use class of the training images is unknown: find out before sharing this folder.",
}


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """All the information on a model card."""

    name: str
    base: str
    """Name of the base's folder."""
    license: str | None
    """License in the base's README."""
    record: AdapterRecord
    adapter_fingerprint: str
    dtype: str
    evaluations: tuple[Mapping[str, Any], ...] = ()
    final: dict[str, float] = field(default_factory=dict)


def student_card(facts: CardFacts) -> str:
    """The card as Markdown with front matter, as the Hugging Face Hub reads it."""
    has_rotation = facts.record.rotation == "full" and bool(facts.record.layers)
    sections = [
        _front_matter(facts),
        f"# {markdown_text(facts.name)}\n\nA LLaVA that answers questions about medical images, trained with medalign "
        f"{__version__} and exported with LoRA merged. It is a research model, not a medical device; its answers "
        "can be wrong.\n",
        "## Model details\n\n" + _table(_facts(facts)),
        "## Usage\n\n" + _use(facts, has_rotation=has_rotation),
        "## Evaluation\n\n" + _evaluation(facts),
        "## Data\n\n" + _data(facts),
        "## License\n\n" + _license(facts),
    ]
    return "\n".join(sections)


def base_license(folder: Path) -> str | None:
    """`license:` in a model folder's README.md; None if it is not given."""
    from huggingface_hub import metadata_load

    readme = folder / "README.md"
    try:
        values = metadata_load(readme) if readme.is_file() else None
    except (ValueError, YAMLError, RecursionError):  # not UTF-8, or its metadata is damaged
        return None
    name = None if values is None else values.get("license")
    return name if isinstance(name, str) else None


def _front_matter(facts: CardFacts) -> str:
    """Metadata for the Hugging Face Hub. `base_model` is left out if the Hub would refuse it, as a name with spaces."""
    from huggingface_hub import ModelCardData
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # exported lazily

    base: str | None = facts.base
    try:
        validate_repo_id(facts.base)
    except HFValidationError:
        base = None
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=base,
        license=facts.license or "other",
        tags=["medalign", "medical", "llava"],
    )
    return f"---\n{metadata.to_yaml()}\n---\n"


def _start(start: StartAdapter) -> str:
    parts = ", ".join(f"{PARTS[part]} ({HOW[how]})" for part, how in start.trained.items())
    return f"adapter with SHA-256 {markdown_code(start.adapter_fingerprint)}, which trained: {parts}"


def _table(rows: Mapping[str, object]) -> str:
    return "| | |\n| --- | --- |\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def _facts(facts: CardFacts) -> dict[str, object]:
    record, settings = facts.record, facts.record.settings
    alignment, lora = settings.get("alignment", {}), settings.get("lora", {})
    trained = ", ".join(f"{PARTS[part]} ({HOW[how]})" for part, how in record.trained.items())
    rows: dict[str, object] = {
        "base": f"{markdown_code(facts.base)}, fingerprint {markdown_code(record.base_fingerprint)}",
        **({} if record.start is None else {"starts from": _start(record.start)}),
        "trained": trained,
        "adapter": f"SHA-256 {markdown_code(facts.adapter_fingerprint)}",
        "precision": facts.dtype,
        "W": _rotation(record),
    }
    if lora:
        rows["LoRA"] = f"rank {_text(lora.get('r'))}, alpha {_text(lora.get('lora_alpha'))}"
    if alignment:
        rows["alignment"] = (
            f"preset {_text(alignment.get('preset'))}, alpha {_text(alignment.get('alpha'))}, "
            f"beta {_text(alignment.get('beta'))}, layer {', '.join(map(str, record.layers))}"
        )
    if "translation" in settings:
        rows["label-free stage"] = f"keep {_text(settings['translation'].get('keep'))} (docs/align.md)"
        if settings["translation"].get("control") not in (None, "none"):
            rows["control"] = f"{_text(settings['translation']['control'])}: the store's features were not used"
    if record.store is not None:
        store = record.store
        rows["teacher"] = f"{_text(store['teacher'])}, weights SHA-256 {markdown_code(str(store['weights_sha256']))}"
        named = f"fingerprint {markdown_code(str(store['fingerprint']))}"
        if "root_sha256" in store:
            named += f", root digest {markdown_code(str(store['root_sha256']))}"
        rows["teacher store"] = named
        if "license" in store:
            title, license = store["title"], store["license"]
            rows["title of the store"] = _text(title or NOT_STATED)
            rows["license of the images"] = (
                f"{_text(license)}, as the store states it" if license else f"{NOT_STATED} in the store"
            )
    else:
        rows["teacher"] = "none: trained without alignment losses"
    return rows


def _text(value: object) -> str:
    """Escape a value from a file as Markdown text."""
    return markdown_text(str(value))


def _rotation(record: AdapterRecord) -> str:
    if record.rotation == "full" and record.layers:
        return f"in `{ROTATION_FILE}`, at the input of decoder layer {', '.join(map(str, record.layers))} (zero-based)"
    return "used only in training" if record.rotation == "train_only" else "none"


def _use(facts: CardFacts, *, has_rotation: bool) -> str:
    usage = (
        f"It was trained with the prompt template {markdown_code(facts.record.template)}, on images padded to a square "
        "with their mean color.\n\n"
        "```\nmedalign student generate --student . --image chest.jpg --question "
        '"Is there a pleural effusion?"\n```\n\n'
    )
    return usage + (ROTATION_USE if has_rotation else "It is a plain Llava:\n\n" + PLAIN_USE) + ANSWER_USE


def _evaluation(facts: CardFacts) -> str:
    text = "".join(_scores(evaluation) for evaluation in facts.evaluations)
    if not text:
        text = "No evaluation was given. Run `medalign student evaluate` to create one.\n"
    losses = {name: f"{value:.4f}" for name, value in facts.final.items()}
    return text + ("\nFinal losses of the training run:\n\n" + _table(losses) if losses else "")


def _scores(evaluation: Mapping[str, Any]) -> str:
    run = evaluation["run"]
    lines = [
        f"Split {', '.join(map(_text, run['splits']))}, {_text(run['questions'])} questions, "
        f"{_text(run['decoding']['name'])} decoding, questions SHA-256 {_text(run['questions_sha256'])}:\n\n",
    ]
    kinds = [kind for kind in ANSWER_SCORES if evaluation["scores"]["reference"].get(kind, {}).get("count")]
    heads = [f"{kind.replace('_', ' ')} | questions" for kind in kinds]
    lines.append(f"| scoring | {' | '.join(heads)} |\n| --- |{' --- | --- |' * len(kinds)}\n")
    for reading in ("reference", "strict"):
        scores = evaluation["scores"][reading]
        cells = [f"{_text(scores[kind]['value'])} | {_text(scores[kind]['count'])}" for kind in kinds]
        lines.append(f"| {reading} | {' | '.join(cells)} |\n")
    return "".join(lines) + "\n"


def _data(facts: CardFacts) -> str:
    record = facts.record
    classes = f"Data-use class: **{record.data_use or 'unknown'}**"
    if record.store is not None:
        classes += f" (teacher store: {_text(record.store['data_use'])})"
    return f"{classes}. {DATA_USE[record.data_use]}\n"


def _license(facts: CardFacts) -> str:
    own = f"gives {markdown_code(facts.license)}" if facts.license else "does not give a license in its README"
    return (
        "These are modified weights of the base, so the base's license and conditions apply: "
        f"{markdown_code(facts.base)} {own}; its license and notice files, if any, are copied here. Models that the "
        "base was built on can add conditions, as Llama's community license does for Vicuna and LLaVA-1.5. State that "
        "the weights were changed. The licenses of the teacher and of the data also apply.\n"
    )

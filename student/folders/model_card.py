"""README.md of an exported student: what it is, what may be done with it, and how W is applied without medalign."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ... import __version__
from ...teacher_cache.store.cards.markdown import markdown_code, markdown_text
from ..adapters.adapter_folder import ROTATION_FILE, AdapterRecord

PARTS = {"language_model": "language model", "projector": "projector", "vision_tower": "vision tower"}
ANSWER_SCORES = ("open_recall", "closed_accuracy", "choice_accuracy")
HOW = {"lora": "LoRA, merged", "full": "all weights"}

PLAIN_USE = """\
```python
from transformers import AutoProcessor, LlavaForConditionalGeneration

model = LlavaForConditionalGeneration.from_pretrained(".")
processor = AutoProcessor.from_pretrained(".")
```
"""

ROTATION_USE = """\
W acts on image positions alone, so it is not in the merged weights. Stock transformers and vLLM leave it out, and
answer differently. medalign applies it by itself; without medalign:

```python
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
```
"""

DATA_USE = {
    "public": "The images that it was trained with are public.",
    "credentialed": "Trained with images that only people with credentials may see. Weights can repeat what they were "
    "trained on: pass this folder on only as the data's agreement allows, and never in public.",
    "private": "Trained with private images. Weights can repeat what they were trained on: do not pass this folder on.",
    None: "The data-use class of the images that it was trained with is unknown: find out before passing it on.",
}


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Everything that a card says."""

    name: str
    base: str
    """Name of the base's folder."""
    licence: str | None
    """What the base's own README gives as its licence."""
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
        f"{__version__} and exported with its LoRA merged. It is a research model and no medical device; its answers "
        "can be wrong.\n",
        "## What it is\n\n" + _table(_facts(facts)),
        "## How to use it\n\n" + _use(facts, has_rotation=has_rotation),
        "## Evaluation\n\n" + _evaluation(facts),
        "## Data\n\n" + _data(facts),
        "## Licence\n\n" + _licence(facts),
    ]
    return "\n".join(sections)


def base_licence(folder: Path) -> str | None:
    """`license:` of a model folder's README.md; None where it says nothing."""
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    found = re.match(r"---\n(.*?)\n---", readme.read_text(errors="replace"), re.DOTALL)
    try:
        values = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return None
    licence = values.get("license") if isinstance(values, dict) else None
    return licence if isinstance(licence, str) else None


def _front_matter(facts: CardFacts) -> str:
    values = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "base_model": facts.base,
        "license": facts.licence or "other",
        "tags": ["medalign", "medical", "llava"],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n"


def _table(rows: Mapping[str, object]) -> str:
    return "| | |\n| --- | --- |\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def _facts(facts: CardFacts) -> dict[str, object]:
    record, settings = facts.record, facts.record.settings
    alignment, lora = settings.get("alignment", {}), settings.get("lora", {})
    trained = ", ".join(f"{PARTS[part]} ({HOW[how]})" for part, how in record.trained.items())
    rows: dict[str, object] = {
        "base": f"{markdown_code(facts.base)}, fingerprint {markdown_code(record.base_fingerprint)}",
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
    if record.store is not None:
        store = record.store
        rows["teacher"] = f"{_text(store['teacher'])}, weights SHA-256 {markdown_code(str(store['weights_sha256']))}"
        rows["teacher store"] = f"fingerprint {markdown_code(str(store['fingerprint']))}"
    else:
        rows["teacher"] = "none: trained without alignment losses"
    return rows


def _text(value: object) -> str:
    """A value from a file, as the text that it is."""
    return markdown_text(str(value))


def _rotation(record: AdapterRecord) -> str:
    if record.rotation == "full" and record.layers:
        return f"in `{ROTATION_FILE}`, at the input of decoder layer {', '.join(map(str, record.layers))} (zero-based)"
    return "used in training alone" if record.rotation == "train_only" else "none"


def _use(facts: CardFacts, *, has_rotation: bool) -> str:
    asked = (
        f"It was trained to be asked in the prompt template {markdown_code(facts.record.template)}, about images "
        "padded to a square with their mean colour.\n\n"
        "```\nmedalign student generate --student . --image chest.jpg --question "
        '"Is there a pleural effusion?"\n```\n\n'
    )
    return asked + (ROTATION_USE if has_rotation else "It is a plain Llava:\n\n" + PLAIN_USE)


def _evaluation(facts: CardFacts) -> str:
    text = "".join(_scores(evaluation) for evaluation in facts.evaluations)
    if not text:
        text = "None was given. `medalign student evaluate` makes one.\n"
    losses = {name: f"{value:.4f}" for name, value in facts.final.items()}
    return text + ("\nLast losses of the training run:\n\n" + _table(losses) if losses else "")


def _scores(evaluation: Mapping[str, Any]) -> str:
    run = evaluation["run"]
    lines = [
        f"Split {', '.join(map(_text, run['splits']))}, {_text(run['questions'])} questions, "
        f"{_text(run['decoding']['name'])} decoding, questions SHA-256 {_text(run['questions_sha256'])}:\n\n",
    ]
    kinds = [kind for kind in ANSWER_SCORES if evaluation["scores"]["reference"].get(kind, {}).get("count")]
    heads = [f"{kind.replace('_', ' ')} | questions" for kind in kinds]
    lines.append(f"| reading | {' | '.join(heads)} |\n| --- |{' --- | --- |' * len(kinds)}\n")
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


def _licence(facts: CardFacts) -> str:
    own = f"gives {markdown_code(facts.licence)}" if facts.licence else "does not give a licence in its README"
    return (
        "These are the base's weights with changes, so the base's licence and conditions hold for them: "
        f"{markdown_code(facts.base)} {own}; its licence and notice files are copied here where it has any. Models "
        "below it can add conditions, as Llama's community licence does for Vicuna and LLaVA-1.5. State that the "
        "weights were changed. The teacher's and the data's own conditions hold beside it.\n"
    )

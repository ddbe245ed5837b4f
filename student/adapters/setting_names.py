"""Settings whose names changed: files that earlier versions wrote are read under the current names.

A user's own configuration with an old name is an error that gives the current one (pipeline/yaml_files.py).
"""

from collections.abc import Mapping
from typing import Any, Final

EARLIER_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "student": {"quantisation": "quantization"},
    "lora": {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"},
    "training": {
        "epochs": "num_train_epochs",
        "batch_size": "per_device_train_batch_size",
        "accumulation_steps": "gradient_accumulation_steps",
        "evaluation_steps": "eval_steps",
        "workers": "dataloader_num_workers",
    },
}
"""By section: the name until version 0.1 and the current one, which is that of transformers' TrainingArguments or of
peft's LoraConfig."""


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The stored settings of a run, its sections as a mapping, under the current names; their order is kept."""
    return {name: _section(values, EARLIER_NAMES.get(name, {})) for name, values in settings.items()}


def _section(values: Any, renamed: Mapping[str, str]) -> Any:
    if not isinstance(values, dict):
        return values
    return {key if renamed.get(key, key) in values else renamed[key]: value for key, value in values.items()}

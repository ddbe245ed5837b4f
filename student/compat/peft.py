"""peft's private and young API, as medalign uses it; tried with peft 0.17 to 0.21.

The layers that hold LoRA, the names of their weights, and one warning of peft's that nobody can act on.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

_MODEL_PREFIX = "base_model.model."
_ADAPTER = "default"


def is_lora_weight(name: str) -> bool:
    """Whether a parameter's name is that of a LoRA matrix."""
    return ".lora_" in name


def base_weight_name(name: str) -> str:
    """A base weight's name without what peft puts around it."""
    return name.removeprefix(_MODEL_PREFIX).replace(".base_layer.", ".")


def saved_lora_name(name: str) -> str:
    """A LoRA weight's name in adapter_model.safetensors."""
    return name.replace(f".{_ADAPTER}.", ".")


def lora_updates(model: PeftModel) -> Iterator[tuple[nn.Module, Tensor]]:
    """Every module with LoRA, and its weight with the update, W + scaling B A [out, in], in float32."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            base: Any = module.get_base_layer()
            weight = base.weight.float()
            for name in module.active_adapters:
                update = module.lora_B[name].weight.float() @ module.lora_A[name].weight.float()
                weight = weight + module.scaling[name] * update
            yield base, weight


@contextmanager
def without_peft_warning() -> Iterator[None]:
    """Hide that peft asks transformers for an attribute by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield

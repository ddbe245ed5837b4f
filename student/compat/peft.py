"""Private and unstable API of peft that medalign uses; tested with peft 0.17 to 0.21.

The layers with LoRA, the names of their weights, and a warning that users cannot act on.
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
    """Whether a parameter's name belongs to a LoRA matrix."""
    return ".lora_" in name


def base_weight_name(name: str) -> str:
    """Name of a base weight without peft's prefixes."""
    return name.removeprefix(_MODEL_PREFIX).replace(".base_layer.", ".")


def saved_lora_name(name: str) -> str:
    """Name of a LoRA weight in adapter_model.safetensors."""
    return name.replace(f".{_ADAPTER}.", ".")


def lora_updates(model: PeftModel) -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield every module with LoRA and its merged weight, W + scaling B A [out, in], in float32."""
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
    """Hide the warning that peft uses a deprecated attribute of transformers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield

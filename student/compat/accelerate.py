"""Private and unstable API of accelerate that medalign uses; tested with accelerate 1.0 to 1.15."""

from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy


def keep_fsdp_on_cpu(state: Any, arguments: dict[str, Any]) -> None:
    """Enable FSDP on machines without an accelerator, for tests; accelerate does not enable it there."""
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**arguments)
    state.distributed_type = DistributedType.FSDP


def keep_precisions(state: Any) -> None:
    """Disable all casts of FSDP2: parameters, inputs and outputs keep their precision.

    accelerate's policy for half precision casts the teacher's targets, the gradients that are reduced over processes,
    and the losses. Only float32 parameters have gradients, and these are reduced in float32.
    """
    state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
        reduce_dtype=torch.float32, cast_forward_inputs=False
    )

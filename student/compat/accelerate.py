"""accelerate's private and young API, as medalign uses it; tried with accelerate 1.0 to 1.15."""

from typing import Any

from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin


def keep_fsdp_on_cpu(state: Any, arguments: dict[str, Any]) -> None:
    """Turn on FSDP where there is no accelerator, so that it can be tried there: accelerate leaves it out."""
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**arguments)
    state.distributed_type = DistributedType.FSDP

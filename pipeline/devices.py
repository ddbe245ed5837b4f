"""Which device a run uses."""

from ..errors import SettingsError
from ..student.processes import Processes


def is_first_process() -> bool:
    """Whether this process draws progress and prints reports; under torchrun one of several does."""
    return Processes.of_environment().writes


def pick_device(wanted: str | None) -> str:
    """The device asked for, else the best one present.

    Of several processes each makes a GPU of its own the current one, before anything is loaded: "cuda" means that one.

    Raises:
        SettingsError: this machine has no such device.
    """
    import torch

    if wanted in (None, "cuda"):
        _use_own_gpu()
    if wanted is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"device {wanted!r} cannot be used here: {reason}. `medalign doctor` lists devices"
        ) from error
    return wanted


def _use_own_gpu() -> None:
    """Make the GPU of this process current; the same as accelerate will, which does so only when training begins."""
    import torch

    processes = Processes.of_environment()
    if processes.number > 1 and torch.cuda.is_available():
        torch.cuda.set_device(processes.local_rank % torch.cuda.device_count())

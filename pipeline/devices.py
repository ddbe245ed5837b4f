"""Selection of the device of a run."""

from ..errors import SettingsError
from ..student.processes import Processes


def is_first_process() -> bool:
    """Whether this process shows progress and prints reports; under torchrun only the first one does."""
    return Processes.of_environment().writes


def pick_device(wanted: str | None) -> str:
    """The requested device, else the best available.

    With several processes, each selects its own GPU before anything is loaded, so that "cuda" refers to it.

    Raises:
        SettingsError: This machine has no such device.
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
        raise SettingsError(f"device {wanted!r} is not available: {reason}. `medalign doctor` lists devices") from error
    return wanted


def _use_own_gpu() -> None:
    """Select the GPU of this process; accelerate selects the same one, but only when training begins."""
    import torch

    processes = Processes.of_environment()
    if processes.number > 1 and torch.cuda.is_available():
        torch.cuda.set_device(processes.local_rank % torch.cuda.device_count())

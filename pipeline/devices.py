"""Which device a run uses."""

from ..errors import SettingsError
from ..student.processes import Processes


def is_first_process() -> bool:
    """Whether this process draws progress and prints reports; under torchrun one of several does."""
    return Processes.of_environment().writes


def pick_device(wanted: str | None) -> str:
    """The device asked for, else the best one present.

    Raises:
        SettingsError: this machine has no such device.
    """
    import torch

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

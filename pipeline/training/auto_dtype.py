"""Resolve `student.dtype: auto` for a training run."""

from ...student.families.bases import stored_dtype
from ..devices import pick_device
from .settings import Settings


def with_dtype(settings: Settings, *, for_card: bool) -> Settings:
    """Replace `auto` in settings by the precision that the base is stored in on a GPU, or float32 on a CPU.

    Args:
        settings: Settings of a run.
        for_card: Whether the run is planned for a GPU, which this machine may not have.

    Raises:
        InputError: The base is not a student, or is incomplete.
    """
    if settings.student.dtype != "auto":
        return settings
    on_gpu = for_card or pick_device(settings.training.device) != "cpu"
    dtype = stored_dtype(settings.student.path) if on_gpu else "float32"
    return settings.model_copy(update={"student": settings.student.model_copy(update={"dtype": dtype})})

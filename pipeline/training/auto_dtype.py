"""Resolve `student.dtype: auto` for a training run."""

from pathlib import Path

from ...choices import Dtype
from ...student.families.bases import stored_dtype
from ...student.loading.start_adapter import base_of
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
    dtype = auto_dtype(settings.student.path, settings.training.device, for_card=for_card)
    return settings.model_copy(update={"student": settings.student.model_copy(update={"dtype": dtype})})


def auto_dtype(base: Path, device: str | None, *, for_card: bool) -> Dtype:
    """The precision of `dtype: auto`: that of the stored base (of an adapter: its base's) on a GPU, float32 on a CPU.

    Raises:
        InputError: The base is not a student, or is incomplete.
    """
    on_gpu = for_card or pick_device(device) != "cpu"
    return stored_dtype(base_of(base)) if on_gpu else "float32"

"""`student.dtype: auto`, the precision of a run whose settings name none."""

from ...student.families.bases import stored_dtype
from ..devices import pick_device
from .settings import Settings


def with_dtype(settings: Settings, *, for_card: bool) -> Settings:
    """The settings with what `auto` is: the precision that the base is stored in on a GPU, float32 on a CPU.

    Args:
        settings: of a run.
        for_card: whether the run is planned for a GPU that this machine need not have.

    Raises:
        InputError: the base is no student, or is not whole.
    """
    if settings.student.dtype != "auto":
        return settings
    on_gpu = for_card or pick_device(settings.training.device) != "cpu"
    dtype = stored_dtype(settings.student.path) if on_gpu else "float32"
    return settings.model_copy(update={"student": settings.student.model_copy(update={"dtype": dtype})})

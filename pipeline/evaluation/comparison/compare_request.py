"""A comparison with the options of `medalign student compare`."""

from dataclasses import dataclass, field
from pathlib import Path

from ....errors import SettingsError
from ....progress import Progress
from ...devices import pick_device
from ..batches.array_tasks import PartReport
from ..batches.dispatch import WorkRequest
from ..requests import device_of
from ..scoring import available_metrics
from .compare import ComparisonReport, reanalyse_comparison, run_comparison
from .spec import ComparisonSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonRequest:
    """What is compared, and who computes."""

    spec: ComparisonSpec
    resume: bool = False
    reanalyse: bool = False
    """Score the saved answers again; no student is loaded."""
    device: str | None = None
    work: WorkRequest = field(default_factory=WorkRequest)

    def check(self) -> None:
        """Check that the options go together.

        Raises:
            SettingsError: they do not.
        """
        if self.resume and self.reanalyse:
            raise SettingsError("--resume answers what is missing and --reanalyse answers nothing: give one of them")
        if self.reanalyse and self.work.may_exist:
            raise SettingsError(
                "--reanalyse scores a finished comparison again: --task and --finish have no part in it"
            )
        if self.resume and self.work.finish:
            raise SettingsError("--resume answers what is missing and --finish answers nothing: give one of them")
        if self.reanalyse and (unused := self.work.unused()):
            raise SettingsError(
                f"--reanalyse scores saved answers and computes no others: leave out {' and '.join(unused)}"
            )


def compare_students(request: ComparisonRequest, out: Path, progress: Progress) -> ComparisonReport | PartReport:
    """Answer, score and compare, or score what was answered.

    Raises:
        InputError, SettingsError: as `run_comparison` and `reanalyse_comparison`.
    """
    request.check()
    device = device_of(request.device, request.work)
    metrics = available_metrics(pick_device(None) if request.work.engine == "ray" else device)
    if request.reanalyse:
        return reanalyse_comparison(request.spec, out, metrics, progress)
    return run_comparison(request.spec, out, metrics, progress, device=device, resume=request.resume, work=request.work)

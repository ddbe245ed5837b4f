"""The options of `medalign student compare`."""

from dataclasses import dataclass, field
from pathlib import Path

from ....errors import SettingsError
from ....progress import Progress
from ...devices import pick_device
from ..batches.array_tasks import PartReport
from ..batches.dispatch import WorkRequest
from ..requests import device_of
from ..scoring import available_metrics
from .compare import ComparisonReport, reanalyze_comparison, run_comparison
from .spec import ComparisonSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonRequest:
    """What to compare, and with which processes."""

    spec: ComparisonSpec
    resume: bool = False
    reanalyze: bool = False
    """Score the saved answers again without loading a student."""
    device: str | None = None
    work: WorkRequest = field(default_factory=WorkRequest)

    def check(self) -> None:
        """Check that the options are compatible.

        Raises:
            SettingsError: They are not.
        """
        if self.resume and self.reanalyze:
            raise SettingsError("--resume and --reanalyze are incompatible: pass only one of them")
        if self.reanalyze and self.work.may_exist:
            raise SettingsError("--reanalyze scores a finished comparison again: omit --task and --finish")
        if self.resume and self.work.finish:
            raise SettingsError("--resume and --finish are incompatible: pass only one of them")
        if self.reanalyze and (unused := self.work.unused()):
            raise SettingsError(f"--reanalyze scores saved answers and computes none: omit {' and '.join(unused)}")


def compare_students(request: ComparisonRequest, out: Path, progress: Progress) -> ComparisonReport | PartReport:
    """Run a comparison, or score its saved answers again.

    Raises:
        InputError, SettingsError: See `run_comparison` and `reanalyze_comparison`.
    """
    request.check()
    device = device_of(request.device, request.work)
    metrics = available_metrics(pick_device(None) if request.work.engine == "ray" else device)
    if request.reanalyze:
        return reanalyze_comparison(request.spec, out, metrics, progress)
    return run_comparison(request.spec, out, metrics, progress, device=device, resume=request.resume, work=request.work)

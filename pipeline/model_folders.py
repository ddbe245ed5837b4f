"""`medalign student init`, `convert` and `export`: create model folders and report on them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..choices import Dtype
from ..errors import InputError
from ..progress import Progress
from ..student.file_errors import is_file, read_object
from ..student.folders.convert import ConvertReport, convert_original
from ..student.folders.export import ExportReport, export_adapter
from ..student.folders.init import InitReport, init_student
from ..suggestions import to_pass
from .evaluation.scoring import METRICS_FILE
from .runs.run_record import check_metrics


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeStudent:
    """A new model folder and its path."""

    out: Path
    report: InitReport | ConvertReport | ExportReport

    def summary(self) -> dict[str, object]:
        return {"student": str(self.out), **asdict(self.report)}


def make_student(
    llm: Path, vision: str, out: Path, *, image_tokens: int, gguf_file: str | None, seed: int, progress: Progress
) -> MadeStudent:
    """Combine a causal language model and a vision tower (a folder, or `tiny`) in the folder `out`.

    Raises:
        InputError: A model cannot be read, or `out` is in use.
        SettingsError: The tower has another number of image tokens.
    """
    report = init_student(
        llm,
        "tiny" if vision == "tiny" else Path(vision),
        out,
        image_tokens=image_tokens,
        seed=seed,
        gguf_file=gguf_file,
        progress=progress,
    )
    return MadeStudent(out=out, report=report)


def convert_student(source: Path, out: Path, *, dtype: Dtype | None, progress: Progress) -> MadeStudent:
    """Convert an original LLaVA checkpoint to transformers' format.

    Raises:
        InputError: `source` is not such a checkpoint or is incomplete, or `out` is in use.
    """
    return MadeStudent(out=out, report=convert_original(source, out, dtype=dtype, progress=progress))


def export_student(
    adapter: Path,
    out: Path,
    *,
    base: Path | None,
    dtype: Dtype | None,
    evaluations: Sequence[Path],
    progress: Progress,
) -> MadeStudent:
    """Merge an adapter into its base, with a model card; `evaluations` are folders of `medalign student evaluate`.

    Raises:
        InputError: The adapter is incomplete or belongs to another base, an evaluation is unfinished or belongs to
            another adapter, or `out` is in use.
    """
    report = export_adapter(
        adapter,
        out,
        base=base,
        dtype=dtype,
        evaluations=[_read_metrics(folder) for folder in evaluations],
        progress=progress,
    )
    return MadeStudent(out=out, report=report)


def _read_metrics(folder: Path) -> dict[str, Any]:
    path = folder / METRICS_FILE
    if not is_file(path):
        advice = to_pass(folder, lambda near: (near / METRICS_FILE).is_file(), "pass the --out of `student evaluate`")
        raise InputError(f"{folder} is not a finished evaluation: it has no {METRICS_FILE}; {advice}")
    metrics = read_object(path)
    check_metrics(metrics, path)
    return metrics

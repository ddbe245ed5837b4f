"""The report of any finished run: recognize its folder, build its page, and write it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ....errors import InputError, MedalignError, SettingsError
from ....plain_text import as_typed, quoted_error
from ....progress import Progress
from ....student.file_errors import is_file, read_object, unfinished_run
from ....suggestions import to_pass
from ...align.align_student import ALIGN_SUMMARY_FILE
from ...evaluation.comparison.claim import COMPARISON_FILE
from ...evaluation.comparison.comparison_tables import TABLES_FILE
from ...evaluation.grounding.ground import FINDINGS_FILE
from ...evaluation.scoring import METRICS_FILE
from ...runs.answer_log import RUN_FILE
from ...runs.run_inputs import RunInputs, read_inputs
from ...studies.study_claim import STUDY_FILE
from ...studies.study_results import RESULTS_FILE
from ...training.train import SUMMARY_FILE
from ..figures.figure_files import FOLDER, remove_other_figures
from ..page import REPORT_FILE, Page, write_page
from ..studies.study_page import study_page
from .comparison_page import comparison_page
from .evaluation_page import evaluation_page
from .grounding_page import grounding_page
from .training_pages.align_page import align_page
from .training_pages.train_page import train_page

PageOf = Callable[[Path, RunInputs | None], Page]
PAGES: Final[Mapping[str, PageOf]] = {
    TABLES_FILE: comparison_page,
    COMPARISON_FILE: comparison_page,
    FINDINGS_FILE: grounding_page,
    METRICS_FILE: evaluation_page,
    SUMMARY_FILE: train_page,
    ALIGN_SUMMARY_FILE: align_page,
    RESULTS_FILE: study_page,
}
"""A file that only finished runs of one kind have, and how their page is made."""


_DEMO_FILE: Final = "demo-plan.json"
_RUNS: Final = "`medalign student train`, `align`, `evaluate`, `compare` or `ground`, or of `medalign study`"
_OTHERS: Final = {
    "inspection.json": "student inspect",
    "attend.json": "student attend",
    "preview.json": "teacher preview",
}
"""A file that only folders of other commands have, and the command."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenReport:
    """A report that was written again."""

    path: Path
    size: int
    """In bytes."""

    def summary(self) -> dict[str, object]:
        """The values for the table."""
        return {"report": str(self.path), "bytes_in_report": self.size}


def write_run_report(out: Path, progress: Progress, given: RunInputs | None = None) -> Path:
    """Write the report of a finished run to its folder, from its saved files; an earlier one is replaced.

    Args:
        out: The folder of the run.
        progress: Shows the drawing of figures.
        given: Where the manifest is now; `None`: where it was.

    Raises:
        InputError: The folder has no finished run, or files of the run are missing or damaged.
        MedalignError: A file cannot be written.
    """
    make = next((make for name, make in PAGES.items() if is_file(out / name)), None)
    if make is None:
        raise InputError(_no_run(out))
    path, page = out / REPORT_FILE, _page(make, out, given)
    write_page(path, page, progress)
    remove_other_figures(out / FOLDER, [figure.name for figure in page.figures])
    return path


def _page(make: PageOf, out: Path, given: RunInputs | None) -> Page:
    """The page of a run; its files were written by medalign, so what does not fit together in them is damage."""
    try:
        return make(out, given)
    except (MedalignError, MemoryError):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {quoted_error(error)}"
        raise InputError(
            f"the files in {out} cannot be made into a page ({why}): they are damaged, or from several runs. Copy the "
            "complete folder again, or run its command again with another --out"
        ) from error


def make_run_report(out: Path, manifest: Path | None, root: Path | None, progress: Progress) -> WrittenReport:
    """Write the report of a finished run again; `manifest` and `root`: where they are now, if they were moved.

    Raises:
        SettingsError: `root` is given, but neither `manifest` nor the folder says where the manifest is.
        InputError: See `write_run_report`.
    """
    recorded = read_inputs(out) if root is not None and manifest is None else None
    if root is not None and manifest is None and recorded is None:
        raise SettingsError(f"{out} does not record where its manifest is: pass --manifest with --root")
    manifest = manifest if recorded is None else recorded.manifest
    path = write_run_report(out, progress, None if manifest is None else RunInputs(manifest=manifest, root=root))
    return WrittenReport(path=path, size=path.stat().st_size)


def try_run_report(out: Path, progress: Progress) -> Path | None:
    """The same after a run, whose results must not be lost: any failure is noted, and `None` returned."""
    return try_report(lambda: write_run_report(out, progress), f"medalign report make {as_typed(out)}", progress)


def try_report(write: Callable[[], Path], command: str, progress: Progress) -> Path | None:
    """Write a report; any failure is noted with the `command` that writes it again, and `None` returned."""
    try:
        return write()
    except Exception as error:
        reason = str(error) if isinstance(error, MedalignError) else f"{type(error).__name__}: {quoted_error(error)}"
        progress.note(f"the report could not be written: {reason}; `{command}` writes it again")
        return None


def demo_command(out: Path, seed: int) -> str:
    """The command that finishes a demo and writes its page."""
    return f"medalign demo --out {as_typed(out)}" + (f" --seed {seed}" if seed else "")


def _no_run(out: Path) -> str:
    if not out.is_dir():
        kind = "is not a folder" if out.exists() else "does not exist"
        return f"{out} {kind}: {_run_to_pass(out)}"
    if is_file(out / _DEMO_FILE):
        seed = read_object(out / _DEMO_FILE).get("seed")
        command = demo_command(out, seed if isinstance(seed, int) else 0)
        return f"{out} is the folder of a demo: `{command}` writes its page again, without training again"
    for name, command in _OTHERS.items():
        if is_file(out / name):
            return (
                f"{out} is the folder of `medalign {command}` ({name}), whose page needs more than its saved files: "
                f"run `medalign {command}` again with a new --out. `medalign report draw {as_typed(out)}` draws the "
                "figures again"
            )
    if is_file(out / STUDY_FILE):
        return f"the study in {out} has no results yet: run `medalign study` with the same specification and --out"
    if unfinished := unfinished_run(out):
        return f"{out} has no finished run{unfinished}"
    if is_file(out / RUN_FILE) and "students" in read_object(out / RUN_FILE):
        return f"the inspection in {out} is not finished: run `medalign student inspect` again with another --out"
    if is_file(out / RUN_FILE):
        return f"the run in {out} is not finished: run its command again with --resume"
    return f"{out} has no finished run of {_RUNS}: {_run_to_pass(out, 'pass its --out')}"


def _run_to_pass(wrong: Path, otherwise: str = f"pass the --out of {_RUNS}") -> str:
    return to_pass(wrong, lambda folder: any((folder / name).is_file() for name in PAGES), otherwise)

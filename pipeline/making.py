"""`medalign student init`: a Llava folder from two models, and what to tell about it."""

from dataclasses import dataclass
from pathlib import Path

from ..progress import Progress
from ..student.init import InitReport, init_student


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeStudent:
    """A new student and where it is."""

    out: Path
    report: InitReport

    def summary(self) -> dict[str, object]:
        return {"student": str(self.out), **self.report.summary()}


def make_student(
    llm: Path, vision: str, out: Path, *, image_tokens: int, gguf_file: str | None, seed: int, progress: Progress
) -> MadeStudent:
    """Join a causal language model and a vision tower (a folder, or `tiny`) in the folder `out`.

    Raises:
        InputError: a model cannot be read, or `out` is in use.
        SettingsError: the tower makes another number of image tokens.
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

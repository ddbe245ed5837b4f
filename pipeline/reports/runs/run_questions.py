"""The manifest rows and images of a finished run's questions, as far as they still exist."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from PIL import Image

from ....choices import DataUse
from ....errors import InputError, MedalignError
from ....path_checks import is_absent
from ....plain_text import as_typed, counted
from ....teacher_cache.images import ChangedImage, UnreadableImage, read_expected_image
from ....teacher_cache.sharing.data_use_gate import strictest
from ...data.manifest import Manifest
from ...runs.run_inputs import RunInputs, read_inputs

MISSING: Final = "missing"
CHANGED: Final = "changed since the run"
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, kw_only=True)
class RunQuestions:
    """The rows of a manifest by question id; empty if the manifest cannot be read."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    root: Path = Path()
    problem: str = ""
    """Why there are no rows, as a sentence."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Why images were not read -> their number."""

    @property
    def data_use(self) -> DataUse | None:
        """Strictest data-use class of the rows; `None` without rows."""
        return strictest([row["data_use"] for row in self.rows.values()]) if self.rows else None

    def image(self, question_id: str, image_hash: str | None) -> Image.Image | None:
        """The first image of a question, upright, in 8 bits; `None` if it is not the one of the run, and counted then.

        A question without an image, or a run without a manifest, has none to count.
        """
        row = self.rows.get(question_id)
        if image_hash is None or not self.rows:
            return None
        if row is None or row["image_hash"] != image_hash:
            self.left_out[CHANGED] += 1
            return None
        path = self.root / row["image"]
        if is_absent(path):
            self.left_out[MISSING] += 1
            return None
        try:
            return read_expected_image(path, image_hash, row["pixel_hash"]).shown
        except ChangedImage:
            self.left_out[CHANGED] += 1
        except UnreadableImage:
            self.left_out[UNREADABLE] += 1
        return None

    def missing_pictures(self) -> str:
        """A sentence about the images that were not read; empty if all were."""
        number = sum(self.left_out.values())
        if self.problem or not number:
            return self.problem
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common())
        return f"{counted(number, 'picture is', 'pictures are')} left out, because of image files: {reasons}."


def find_questions(out: Path, question_ids: Iterable[str], given: RunInputs | None = None) -> RunQuestions:
    """Read the manifest rows of a run's questions.

    Args:
        out: The folder of the run.
        question_ids: The questions.
        given: Where the manifest is now; `None`: where the run recorded it.

    Raises:
        InputError: A `given` manifest cannot be read, or has none of the questions.
    """
    inputs = given or read_inputs(out)
    if inputs is None:
        return RunQuestions(problem=_not_recorded(out))
    try:
        manifest = Manifest.read(inputs.manifest, inputs.root)
        wanted = set(question_ids)
        rows = {row["question_id"]: row for row in manifest.questions.iter_rows(named=True)}
        rows = {name: row for name, row in rows.items() if name in wanted}
        if not rows:
            raise InputError(f"{inputs.manifest} has none of the questions of {out}: pass the manifest of that run")
    except MedalignError as error:
        if given is not None:
            raise
        return RunQuestions(problem=f"There are no pictures, because the manifest cannot be read: {error}")
    return RunQuestions(rows=rows, root=manifest.root)


def _not_recorded(out: Path) -> str:
    return (
        "There are no pictures, because the folder does not record where its manifest is: "
        f"`medalign report make {as_typed(out)} --manifest FILE` adds them."
    )

"""What commands that take a student through one split of a manifest are asked in common."""

from dataclasses import dataclass
from pathlib import Path

from ..student.bases import Dtype
from ..student.loading import Student, load_student
from .describing import adapter_folder
from .devices import pick_device
from .manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRequest:
    """A student, and the questions of a split."""

    student: Path
    """Base model folder, or an adapter folder that knows its base."""
    adapter: Path | None = None
    manifest: Path
    root: Path | None = None
    split: str = "test"
    batch_size: int = 8
    limit: int | None = None
    """Only the first so many questions; `None`: all."""
    template: str | None = None
    device: str | None = None
    dtype: Dtype = "float32"
    resume: bool = False

    @property
    def adapter_folder(self) -> Path | None:
        """Where the adapter is."""
        return adapter_folder(self.student, self.adapter)

    def read_split(self) -> Manifest:
        """The split of the manifest.

        Raises:
            InputError: no such manifest or split.
        """
        return Manifest.read(self.manifest, self.root).split(self.split)

    def load_student(self) -> Student:
        """The student with its adapter, on its device.

        Raises:
            InputError: it cannot be read.
            SettingsError: no such device or template.
        """
        device = pick_device(self.device)
        return load_student(self.student, adapter=self.adapter, device=device, dtype=self.dtype, template=self.template)

"""Options shared by the commands that run a student on one split of a manifest."""

from dataclasses import dataclass, field
from pathlib import Path

from ...choices import DtypeChoice
from ...errors import SettingsError
from ...student.adapters.adapter_folder import read_adapter_record
from ..data.manifest import Manifest
from ..devices import pick_device
from ..runs.provenance import adapter_folder
from ..runs.run_inputs import RunInputs
from .batches.batch_work import StudentRecipe
from .batches.dispatch import WorkRequest
from .batches.process_group import local_device


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRequest:
    """A student, and the questions of a split."""

    student: Path
    """Base model folder, or an adapter folder, which records its base."""
    adapter: Path | None = None
    manifest: Path
    root: Path | None = None
    split: str = "test"
    batch_size: int = 8
    limit: int | None = None
    """Only the first N questions; `None`: all."""
    template: str | None = None
    device: str | None = None
    dtype: DtypeChoice = "auto"
    """`auto`: that of the adapter, else of the base."""
    keep_lora_apart: bool = False
    """Keep LoRA separate instead of merging it into the weights."""
    work: WorkRequest = field(default_factory=WorkRequest)
    resume: bool = False

    @property
    def adapter_folder(self) -> Path | None:
        """The adapter folder, if any."""
        return adapter_folder(self.student, self.adapter)

    @property
    def inputs(self) -> RunInputs:
        """Where the questions and images are."""
        return RunInputs(manifest=self.manifest, root=self.root)

    def read_split(self) -> Manifest:
        """The split of the manifest.

        Raises:
            InputError: The manifest or the split does not exist.
        """
        return Manifest.read(self.manifest, self.root).split(self.split)

    def recipe(self) -> StudentRecipe:
        """How to load the student with its adapter, on this process's device.

        Raises:
            SettingsError: The device does not exist, or there is no LoRA to keep separate.
        """
        if self.keep_lora_apart:
            check_has_lora(self.student, self.adapter_folder)
        return StudentRecipe(
            folder=self.student,
            adapter=self.adapter,
            device=device_of(self.device, self.work),
            dtype=self.dtype,
            template=self.template,
            keep_lora_apart=self.keep_lora_apart,
        )


def check_has_lora(student: Path, adapter: Path | None) -> None:
    """Check that a student has LoRA, which --keep-lora-apart needs.

    Raises:
        SettingsError: It has no adapter, or one without LoRA.
        InputError: Its adapter cannot be read.
    """
    if adapter is None or "lora" not in read_adapter_record(adapter).trained.values():
        has = "has no adapter" if adapter is None else f"has an adapter without LoRA ({adapter})"
        raise SettingsError(f"--keep-lora-apart needs an adapter with LoRA, but {student} {has}: omit the option")


def device_of(device: str | None, work: WorkRequest) -> str:
    """The device of this process or of workers; with Ray the nodes choose their devices.

    Raises:
        SettingsError: The device does not exist.
    """
    if work.engine == "ray" and device is not None:
        return device
    return local_device(pick_device(device))

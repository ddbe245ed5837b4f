"""The configuration of `student align`: typed, frozen, every problem reported at once."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from ...choices import Dtype, DtypeChoice, Geometry, TrainingDevice, TrainProjector
from ...errors import SettingsError
from ..training.run_folder import settings_file
from ..training.settings import LoraSettings, Seed, SettingsSection
from ..training.settings_loading import Overrides, apply_overrides
from ..yaml_files import check_sections, read_sections

ALIGN_CONFIG_FILE = "align.yaml"
"""The resolved settings of a run, in its folder."""

MAY_CHANGE = {
    "student.path",
    "data.targets",
    "data.targets_root",
    "data.anchors",
    "data.anchors_root",
    "data.store",
    "data.hash_key",
    "training.dataloader_num_workers",
    "training.logging_steps",
    "training.save_steps",
    "training.device",
    "report.images",
    "report.max_new_tokens",
}
"""Settings that do not affect the result of a resumed run, except for rounding on another device."""


class AlignedStudentSettings(SettingsSection):
    path: Path
    """Base model folder or adapter, as in `student train`."""
    template: str | None = None
    """Prompt template that the adapter records; nothing is asked in this stage."""
    dtype: DtypeChoice = "auto"
    """Precision of the frozen weights and of the forward pass; auto: as in `student train`."""

    @property
    def precision(self) -> Dtype:
        """`dtype` of a run that is planned, which is no longer `auto`."""
        assert self.dtype != "auto"
        return self.dtype


class AlignDataSettings(SettingsSection):
    store: str
    """Teacher store with E_v of all images, a folder or a URL; a Gram profile has none."""
    targets: Path
    """Manifest of the images that the student does not read well; questions and answers are ignored."""
    targets_split: str | None = None
    """null: all rows."""
    targets_root: Path | None = None
    """Folder that image paths are relative to; null: as the manifest says."""
    anchors: Path
    """Manifest of the images that the student reads well."""
    anchors_split: str | None = None
    anchors_root: Path | None = None
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the anchors, and of the targets, that is only measured; whole images, drawn with the seed."""
    geometry: Geometry = "pad"
    """How the store's teacher must have seen the images; pad: as the student does."""
    hash_key: Path | None = None
    """The key of a store whose image hashes are keyed."""
    teacher: str | None = None
    """Name of the teacher that the store must be of; null: any."""


class TranslationSettings(SettingsSection):
    ridge: float = Field(default=10.0, gt=0)
    """Penalty of the squared coefficients, in the sum over all rows (cells of all fitted anchors)."""
    minimum_r2: float = Field(default=0.5, lt=1)
    """Smallest R^2 on held-out anchors with which the student is trained (docs/align.md says why)."""
    minimum_skill: float | None = Field(default=0.3, lt=1)
    """Smallest share of what random features leave unexplained that the teacher explains; null: not checked."""
    keep: float = Field(default=0.3, ge=0)
    """Weight of the loss that keeps the anchors' tokens."""
    control: Literal["none", "random-teacher"] = "none"
    """random-teacher: a random network of each cell's pixels instead of the store's features (docs/align.md)."""


class AlignTrainableSettings(SettingsSection):
    vision_tower: Literal["lora", "full"] = "lora"
    projector: TrainProjector = "none"
    projector_learning_rate: float | None = Field(default=None, gt=0)
    """null: 0.1 x training.learning_rate."""


class AlignTrainingSettings(SettingsSection):
    steps: int = Field(default=400, ge=1)
    """Optimizer steps."""
    targets_per_step: int = Field(default=32, ge=1)
    """Target images in an optimizer step, of all processes together."""
    anchors_per_step: int = Field(default=16, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Forward passes of each process in an optimizer step; the images of a step are divided among them."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Of the vision tower."""
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients of an optimizer step are scaled down to this norm; null: never."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which learning rates rise linearly; then they fall along a cosine."""
    save_steps: int = Field(default=100, ge=1)
    """Optimizer steps between checkpoints."""
    logging_steps: int = Field(default=10, ge=1)
    dataloader_num_workers: int = Field(default=2, ge=0, le=1024)
    """Processes that read images and features."""
    seed: Seed = 0
    device: TrainingDevice | None = None
    """null: cuda or mps where present, else cpu."""

    def images_per_pass(self, processes: int) -> int:
        """Images in one forward pass of one process.

        Raises:
            SettingsError: A step cannot be divided among the processes.
        """
        images, passes = self.targets_per_step + self.anchors_per_step, self.gradient_accumulation_steps
        if images % (passes * processes):
            raise SettingsError(
                f"training.targets_per_step {self.targets_per_step} + training.anchors_per_step "
                f"{self.anchors_per_step} = {images} images cannot be divided into "
                f"training.gradient_accumulation_steps {passes} x {processes} processes: change one of them so that "
                "it can"
            )
        return images // (passes * processes)


class AlignReportSettings(SettingsSection):
    images: int = Field(default=100, ge=0)
    """Largest number of targets, and of anchors, whose answers and probes are compared at the end; 0: none."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Longest answer of the comparison, in tokens."""


class AlignSettings(SettingsSection):
    """A whole run of `student align`."""

    student: AlignedStudentSettings
    data: AlignDataSettings
    translation: TranslationSettings = TranslationSettings()
    trainable: AlignTrainableSettings = AlignTrainableSettings()
    lora: LoraSettings = LoraSettings(lora_dropout=0.0)
    training: AlignTrainingSettings = AlignTrainingSettings()
    report: AlignReportSettings = AlignReportSettings()

    @property
    def projector_learning_rate(self) -> float:
        return self.trainable.projector_learning_rate or 0.1 * self.training.learning_rate

    def to_yaml(self) -> str:
        """The resolved settings, every default spelled out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_align_settings(
    config: Path | Mapping[str, Any] | None, out: Path | None, overrides: Overrides = (), *, resume: bool
) -> AlignSettings:
    """Read the settings in `config`, a file or its sections; if it is None those of the run in `out`.

    Raises:
        SettingsError: A setting is wrong (all are listed), or `config` is None and the run is not resumed.
        InputError: `config` is None and `out` has no run.
    """
    if isinstance(config, Mapping):
        source: Path | str = "config"
        values = deepcopy(dict(config))
    else:
        source = config or settings_file(out, ALIGN_CONFIG_FILE, "`medalign student align CONFIG", resume=resume)
        values = read_sections(Path(source), AlignSettings)
    apply_overrides(values, overrides)
    return check_sections(source, values, AlignSettings)


def with_control(overrides: Overrides, control: str | None) -> Overrides:
    """Overrides with that of `--control`, if it was passed."""
    if control is None:
        return overrides
    if isinstance(overrides, Mapping):
        return {**overrides, "translation.control": control}
    return [*overrides, f"translation.control={control}"]

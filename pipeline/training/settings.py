"""The configuration of a training run: typed, frozen, every problem reported at once.

Settings end at the builders: `pipeline/training/train.py` turns them into plain arguments.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from ...choices import (
    AlignedPart,
    AttentionNormalization,
    AttentionRows,
    AttentionTargets,
    Checkpointing,
    Dtype,
    DtypeChoice,
    Geometry,
    ImageTokens,
    Quantization,
    RotationMode,
    Sharding,
    TrainingDevice,
    TrainLanguageModel,
    TrainProjector,
    TrainVisionTower,
    VisualWeights,
)
from ..yaml_files import refuse_enormous

Seed = Annotated[int, Field(ge=0, lt=2**32)]
PresetName = Literal["default", "paper", "released"]

CONFIG_FILE = "config.yaml"
"""The resolved settings of a run, in its folder."""


class SettingsSection(BaseModel):
    """Values of one section: frozen, finite, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's yes, no, on and off are booleans, which pydantic would take for the numbers 1 and 0."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("needs a value, not a boolean (quote words such as yes, no, on and off)")
        return value

    _refuse_enormous = field_validator("*", mode="after")(refuse_enormous)


class Preset(SettingsSection):
    """What a named recipe fixes beyond the weights of the losses."""

    attention_normalization: AttentionNormalization
    geometry: Geometry
    rotation_rate: float
    """Learning rate of W as a multiple of LoRA's."""


PRESETS: dict[PresetName, Preset] = {
    "paper": Preset(attention_normalization="softmax", geometry="pad", rotation_rate=1.0),
    "released": Preset(attention_normalization="l2", geometry="crop", rotation_rate=1.0),
    "default": Preset(attention_normalization="sum", geometry="pad", rotation_rate=0.1),
}
"""`paper`: the equations as printed. `released`: the alignment losses of the released code, but neither its answer
loss nor its UniMed-CLIP ViT-B targets (docs/training.md says what differs). `default`: sum-normalized maps, a true
KL, and a slower W (docs/decisions.md)."""


class StudentSettings(SettingsSection):
    path: Path
    """Base model folder: transformers Llava, or an original checkpoint as published (docs/students.md); or an adapter's
    folder, which is merged into its base in memory (docs/align.md)."""
    template: str | None = None
    """Prompt template; null: the base's own (docs/students.md)."""
    dtype: DtypeChoice = "auto"
    """Precision of the frozen weights and of the forward pass; whatever is trained is float32. auto: the one that the
    base is stored in on a GPU, float32 on a CPU; a run writes which of them it was."""
    quantization: Quantization | None = None
    """Keep the frozen language model in 4 bits (nf4, doubly quantized) or 8 bits; needs bitsandbytes."""

    @property
    def precision(self) -> Dtype:
        """`dtype` of a run that is planned, which is no longer `auto`."""
        assert self.dtype != "auto"
        return self.dtype


class AlignmentSettings(SettingsSection):
    preset: PresetName = "default"
    layer: int | tuple[int, ...] = 20
    """Zero-based decoder layer whose input is rotated and whose attention is aligned; or several, [16, 20]."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of L_vis in Eq. 7; 0 turns it off."""
    beta: float = Field(default=0.03, ge=0)
    """Weight of L_att in Eq. 7; 0 turns it off."""
    rotation: RotationMode = "full"
    """full: W acts on the image tokens, in training and in inference. train_only: on what L_vis compares alone, so
    the trained model runs without it. none: there is no W."""
    attention_rows: AttentionRows = "question"
    """Whose attention to the image L_att supervises: the question's tokens, the positions that predict the answer's, or
    both."""
    attention_targets: AttentionTargets = "teacher"
    """Target of L_att: the teacher's E_a; the annotated regions of the manifest, where there are any; or both, the mean
    of the two where there are regions and E_a elsewhere."""
    visual_gradient: Literal["all"] | tuple[AlignedPart, ...] = "all"
    """Trained parts that L_vis changes: all, or some of lora, rotation, projector and tower, such as [rotation]. If
    they are not all trained parts, a step has a second backward pass."""
    visual_weights: VisualWeights = "uniform"
    """Weights of the pairs of patches in L_vis: uniform, as in Eq. 4, or the teacher's E_a of both patches."""
    image_tokens: ImageTokens = "student"
    """Where the language model's image tokens come from: the student's vision tower and projector, or a trained
    projection of the teacher's E_v in their place, without distillation (the paper's "w/o distill", Figure 4B)."""
    query_experts: bool = False
    """MoE-Q: four LoRA experts on the query projection of every aligned layer, mixed by a router on the prompt's last
    token. Their rate is training.learning_rate."""
    geometry: Geometry | None = None
    """How the store's teacher must have seen the images; null: as the preset says."""

    @field_validator("layer", mode="before")
    @classmethod
    def _check_layer(cls, value: Any) -> Any:
        layers = value if isinstance(value, list | tuple) else [value]
        if not layers:
            raise ValueError("names no layer; to train without alignment set alpha and beta to 0 and rotation to none")
        if not all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 for layer in layers):
            raise ValueError("needs a whole number from 0, or a list of them such as [16, 20]")
        if len(set(layers)) < len(layers):
            raise ValueError("names a layer twice; W and both losses act once at each layer")
        return value

    @field_validator("visual_gradient", mode="before")
    @classmethod
    def _check_visual_gradient(cls, value: Any) -> Any:
        known = get_args(AlignedPart)
        if value == "all":
            return value
        if not isinstance(value, list | tuple) or not value or any(part not in known for part in value):
            raise ValueError(f"needs all, or a list of some of {', '.join(known)}, such as [rotation]")
        if len(set(value)) < len(value):
            raise ValueError("names a part twice")
        return tuple(value)

    @property
    def layers(self) -> tuple[int, ...]:
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    @property
    def required_geometry(self) -> Geometry:
        return self.geometry or PRESETS[self.preset].geometry

    @property
    def uses_store(self) -> bool:
        uses_E_a = self.beta > 0 and self.attention_targets != "regions"
        return self.alpha > 0 or uses_E_a or self.image_tokens == "teacher"

    @property
    def uses_regions(self) -> bool:
        return self.beta > 0 and self.attention_targets != "teacher"


class TrainableSettings(SettingsSection):
    """What is trained; W follows alignment.rotation. A rate that is null follows training.learning_rate."""

    language_model: TrainLanguageModel = "lora"
    """lora: on every linear layer, not on lm_head. Its rate is training.learning_rate."""
    projector: TrainProjector = "none"
    projector_learning_rate: float | None = Field(default=None, gt=0)
    """null: 0.1 x training.learning_rate (LLaVA-1.5 with LoRA: 2e-5 beside 2e-4)."""
    vision_tower: TrainVisionTower = "none"
    vision_tower_learning_rate: float | None = Field(default=None, gt=0)
    """null: training.learning_rate for lora, 0.01 x it for full (LLaVA-NeXT: 2e-6)."""
    rotation_learning_rate: float | None = Field(default=None, gt=0)
    """Of W; null: training.learning_rate times the preset's rotation_rate."""
    teacher_projection_learning_rate: float | None = Field(default=None, gt=0)
    """With alignment.image_tokens teacher; null: training.learning_rate."""


class LoraSettings(SettingsSection):
    """Names are those of peft's LoraConfig."""

    r: int = Field(default=32, ge=1, le=65_536)
    """Rank."""
    lora_alpha: int = Field(default=16, ge=1)
    """LoRA's own scale (not Eq. 7's alpha): updates are multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    b_rate: float = Field(default=1.0, gt=0)
    """Learning rate of B as a multiple of A's (LoRA+, which takes 16); 1 is plain LoRA."""


class DataSettings(SettingsSection):
    manifest: Path
    root: Path | None = None
    """Folder that the manifest's image paths start from; null: as the manifest says."""
    store: str | None = None
    """Teacher store, a folder or a URL (docs/sharing.md); may be null where alpha is 0 and beta is 0 or
    attention_targets is regions, unless image_tokens is teacher."""
    hash_key: Path | None = None
    """The key of a store whose image hashes are keyed; null where they are plain."""
    teacher: str | None = None
    """Name of the teacher that the store must be of; null: any."""
    train_split: str = "train"
    validation_split: str | None = None
    """Split to evaluate on during training; null: no evaluation."""


class TrainingSettings(SettingsSection):
    """Names are those of transformers' TrainingArguments, where it has the setting."""

    num_train_epochs: float = Field(default=3.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; overrides num_train_epochs."""
    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Samples in one forward pass on one device."""
    gradient_accumulation_steps: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    """Of the language model's LoRA; the other parts' rates are in `trainable`."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients of an optimizer step are scaled down to this norm; null: never."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps over which learning rates rise linearly; the first step already trains."""
    max_length: int = Field(default=1024, ge=1)
    """Longest sample in tokens, image tokens included; a longer one is an error, never cut."""
    group_by_length: bool = True
    """Samples of about one length share an optimizer step, so that little is padded."""
    gradient_checkpointing: Checkpointing | None = None
    """Compute activations again in the backward pass instead of keeping them."""
    sharding: Sharding | None = None
    """How the processes of torchrun share the student; null: each has all of it (DDP)."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between evaluations; null: once an epoch."""
    patience: int | None = Field(default=None, ge=1)
    """Evaluations in a row without a lower validation loss after which training stops; the best adapter is kept."""
    save_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between checkpoints; null: once an epoch."""
    logging_steps: int = Field(default=10, ge=1)
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where logs go besides log.jsonl."""
    dataloader_num_workers: int = Field(default=2, ge=0, le=1024)
    """Processes that read images and targets."""
    seed: Seed = 0
    device: TrainingDevice | None = None
    """null: cuda or mps where present, else cpu. CUDA_VISIBLE_DEVICES says which GPU cuda is."""

    @field_validator("report_to")
    @classmethod
    def _check_report_to(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a reporter twice")
        return value


class Settings(SettingsSection):
    """A whole training run."""

    student: StudentSettings
    data: DataSettings
    alignment: AlignmentSettings = AlignmentSettings()
    trainable: TrainableSettings = TrainableSettings()
    lora: LoraSettings = LoraSettings()
    training: TrainingSettings = TrainingSettings()

    @property
    def trained_parts(self) -> tuple[AlignedPart, ...]:
        modes: dict[AlignedPart, str] = {
            "lora": self.trainable.language_model,
            "rotation": self.alignment.rotation,
            "projector": self.trainable.projector,
            "tower": self.trainable.vision_tower,
        }
        return tuple(part for part, mode in modes.items() if mode != "none")

    @property
    def restricts_visual_gradient(self) -> bool:
        """Whether a step needs a separate gradient of L_vis."""
        named = self.alignment.visual_gradient
        return self.alignment.alpha > 0 and named != "all" and not set(named) >= set(self.trained_parts)

    @property
    def projector_learning_rate(self) -> float:
        return self.trainable.projector_learning_rate or 0.1 * self.training.learning_rate

    @property
    def vision_tower_learning_rate(self) -> float:
        factor = 0.01 if self.trainable.vision_tower == "full" else 1.0
        return self.trainable.vision_tower_learning_rate or factor * self.training.learning_rate

    @property
    def rotation_learning_rate(self) -> float:
        factor = PRESETS[self.alignment.preset].rotation_rate
        return self.trainable.rotation_learning_rate or factor * self.training.learning_rate

    @property
    def teacher_projection_learning_rate(self) -> float:
        return self.trainable.teacher_projection_learning_rate or self.training.learning_rate

    def to_yaml(self) -> str:
        """The resolved settings, every default spelled out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

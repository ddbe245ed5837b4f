"""The teachers that medalign supports, as plain data. Importing this module loads neither torch nor open_clip."""

from dataclasses import dataclass
from typing import Literal

from ...choices import Features
from ...errors import SettingsError
from ...suggestions import suggestion
from ..geometry.patch_grid import PatchGrid

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


WeightsFormat = Literal["unimed-pt", "open-clip-folder", "safetensors"]
Stem = Literal["patches", "convolutions"]
"""How pixels become patch tokens: one linear map of each patch, or the three convolutions of `conv_stem.py`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSpec:
    """One expert CLIP image tower: its architecture, its input pixels, and its features."""

    name: str
    title: str
    weights_format: WeightsFormat
    weights_hint: str
    """Description of what `--weights` expects, for error messages and docs."""
    timm_name: str | None = None
    """timm's name for the trunk; `None`: open_clip's VisionTransformer."""
    image_size: int
    """Side of the square input, pixels."""
    patch_size: int
    width: int
    """b, the number of channels of a patch feature."""
    layers: int
    heads: int
    embed_dim: int
    """Output width of the projection, which is loaded (because loading is strict) but not used."""
    quick_gelu: bool
    features: Features
    stem: Stem = "patches"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @property
    def grid(self) -> PatchGrid:
        """The native patch grid, row-major from the top left."""
        side = self.image_size // self.patch_size
        return PatchGrid(side, side)


_SPECS = (
    TeacherSpec(
        name="unimed-l14-336",
        title="UniMed-CLIP ViT-L/14 at 336 pixels",
        weights_format="unimed-pt",
        weights_hint="unimed_clip_vit_l14_base_text_encoder.pt",
        image_size=336,
        patch_size=14,
        width=1024,
        layers=24,
        heads=16,
        embed_dim=768,
        quick_gelu=True,
        features="last-block",
    ),
    TeacherSpec(
        name="unimed-b16-224",
        title="UniMed-CLIP ViT-B/16 at 224 pixels",
        weights_format="unimed-pt",
        weights_hint="unimed-clip-vit-b16.pt",
        image_size=224,
        patch_size=16,
        width=768,
        layers=12,
        heads=12,
        embed_dim=512,
        quick_gelu=True,
        features="last-block",
    ),
    TeacherSpec(
        name="biomedclip-b16-224",
        title="BiomedCLIP ViT-B/16 at 224 pixels",
        weights_format="open-clip-folder",
        weights_hint="a folder with open_clip_config.json and open_clip_pytorch_model.bin (or .safetensors), "
        "or hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        timm_name="vit_base_patch16_224",
        image_size=224,
        patch_size=16,
        width=768,
        layers=12,
        heads=12,
        embed_dim=512,
        quick_gelu=False,
        features="final-norm",
    ),
    TeacherSpec(
        name="phantom-tiny",
        title="a tiny ViT with a convolutional stem, trained on medalign's own phantoms, for the demo and for tests",
        weights_format="safetensors",
        weights_hint="phantom-teacher.safetensors",
        image_size=96,
        patch_size=8,
        width=96,
        layers=2,
        heads=4,
        embed_dim=64,
        quick_gelu=False,
        features="last-block",
        stem="convolutions",
    ),
)

TEACHERS: dict[str, TeacherSpec] = {spec.name: spec for spec in _SPECS}


def teacher_spec(name: str) -> TeacherSpec:
    """Look up a teacher by name.

    Raises:
        SettingsError: no teacher has this name; the message lists all names.
    """
    try:
        return TEACHERS[name]
    except (KeyError, TypeError):  # TypeError: a list is no key
        raise SettingsError(
            f"unknown teacher {name!r}{suggestion(name, TEACHERS)}; choose one of {', '.join(TEACHERS)}"
        ) from None

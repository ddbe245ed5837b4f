"""Image towers with random weights, built from open_clip's classes."""

from open_clip.timm_model import TimmModel
from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer
from torch import nn

from .conv_stem import ConvStem
from .registry import TeacherSpec


def build_tower(spec: TeacherSpec) -> nn.Module:
    """Build the image tower of `spec` with random weights (torch's global generator, on the current device).

    Its state dict has open_clip's names without the `visual.` prefix. Its input is pixels
    [B, 3, image_size, image_size].
    """
    if spec.timm_name is not None:
        return _timm_tower(spec, spec.timm_name)
    return _open_clip_tower(spec)


def _open_clip_tower(spec: TeacherSpec) -> nn.Module:
    tower: nn.Module = VisionTransformer(
        image_size=spec.image_size,
        patch_size=spec.patch_size,
        width=spec.width,
        layers=spec.layers,
        heads=spec.heads,
        mlp_ratio=4.0,
        output_dim=spec.embed_dim,
        act_layer=QuickGELU if spec.quick_gelu else nn.GELU,
        norm_layer=LayerNorm,
    )
    if spec.stem == "convolutions":
        tower.conv1 = ConvStem(spec.width)
    return tower


def _timm_tower(spec: TeacherSpec, timm_name: str) -> nn.Module:
    tower: nn.Module = TimmModel(
        timm_name,
        embed_dim=spec.embed_dim,
        image_size=spec.image_size,
        pool="",
        proj="linear",
        pretrained=False,
    )
    return tower

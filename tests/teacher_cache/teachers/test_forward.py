"""E_v and E_a compared with a straight-line forward pass with full attention maps, written from the architecture."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.teacher_cache.teachers import TeacherSpec, teacher_spec
from medalign.teacher_cache.teachers.forward import Teacher, cls_attention
from medalign.teacher_cache.teachers.towers import build_tower
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

MINI = dataclasses.replace(
    teacher_spec("unimed-b16-224"), image_size=32, patch_size=8, width=24, layers=3, heads=3, embed_dim=8
)
MINI_TIMM = dataclasses.replace(
    teacher_spec("biomedclip-b16-224"), timm_name="vit_tiny_patch16_224", width=192, heads=3
)


def make_teacher(spec: TeacherSpec, dtype: Any = "float32") -> Teacher:
    torch.manual_seed(7)
    tower = build_tower(spec).eval().requires_grad_(False)
    for name, parameter in tower.named_parameters():  # all gains and biases take part
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn(parameter.shape) * 0.2)
        elif "in_proj" in name or "qkv" in name:
            parameter.data.mul_(3.0)
    return Teacher(spec=spec, tower=tower, device=torch.device("cpu"), dtype=dtype, weights_sha256="")


def doubles(teacher: Teacher) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in teacher.tower.state_dict().items()}


def norm(x: Tensor, state: dict[str, Tensor], name: str, eps: float) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    scaled = centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def slow_block(x, names, state, spec, eps):
    """One image, one block, head by head: the tokens and the mean attention map [T, T]."""
    normed = norm(x, state, names["norm1"], eps)
    qkv = torch.einsum("tc,dc->td", normed, state[names["qkv_weight"]]) + state[names["qkv_bias"]]
    query, key, value = qkv.chunk(3, dim=-1)
    size = spec.width // spec.heads
    maps, mixed = [], []
    for head in range(spec.heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / size**0.5
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        maps.append(weights)
        mixed.append(weights @ value[:, part])
    proj = names["proj"]
    x = x + torch.cat(mixed, dim=-1) @ state[f"{proj}.weight"].T + state[f"{proj}.bias"]
    normed = norm(x, state, names["norm2"], eps)
    hidden = normed @ state[f"{names['fc1']}.weight"].T + state[f"{names['fc1']}.bias"]
    if spec.quick_gelu:
        hidden = hidden / (1 + (-1.702 * hidden).exp())
    else:
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    x = x + hidden @ state[f"{names['fc2']}.weight"].T + state[f"{names['fc2']}.bias"]
    return x, torch.stack(maps).mean(0)


def patchify(pixels: Tensor, weight: Tensor, size: int) -> Tensor:
    """[3, S, S] -> [M, width], row-major, patch by patch."""
    side = pixels.shape[-1] // size
    rows = []
    for i in range(side):
        for j in range(side):
            patch = pixels[:, i * size : (i + 1) * size, j * size : (j + 1) * size]
            rows.append(torch.einsum("cyx,dcyx->d", patch, weight))
    return torch.stack(rows)


def convolved(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """[C, S, S] -> [D, S / 2, S / 2]: each output pixel is a sum over the 3x3 pixels around every second one."""
    weight, side = state[f"{name}.weight"], x.shape[-1]
    padded = torch.zeros(x.shape[0], side + 2, side + 2)
    padded[:, 1:-1, 1:-1] = x
    total = state[f"{name}.bias"][:, None, None]
    for row in range(3):
        for column in range(3):
            seen = padded[:, row : row + side : 2, column : column + side : 2]
            total = total + torch.einsum("cyx,dc->dyx", seen, weight[:, :, row, column])
    return total


def stem(pixels: Tensor, state: dict[str, Tensor]) -> Tensor:
    """[3, S, S] -> [M, width]: three convolutions, the first two with group norm and GELU."""
    x = pixels
    for number in (0, 3, 6):
        x = convolved(x, state, f"conv1.layers.{number}")
        if number < 6:
            groups = x.reshape(4, -1)
            mean, variance = groups.mean(1, keepdim=True), groups.var(1, unbiased=False, keepdim=True)
            x = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
            scale, offset = (state[f"conv1.layers.{number + 1}.{kind}"] for kind in ("weight", "bias"))
            x = x * scale[:, None, None] + offset[:, None, None]
            x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    return x.flatten(1).T


def slow_open_clip(spec: TeacherSpec, state: dict[str, Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    if spec.stem == "convolutions":
        x = stem(pixels, state)
    else:
        x = patchify(pixels, state["conv1.weight"], spec.patch_size)
    x = torch.cat([state["class_embedding"][None], x]) + state["positional_embedding"]
    x = norm(x, state, "ln_pre", 1e-5)
    weights = torch.empty(0)
    for layer in range(spec.layers):
        block = f"transformer.resblocks.{layer}"
        names = {
            "norm1": f"{block}.ln_1",
            "qkv_weight": f"{block}.attn.in_proj_weight",
            "qkv_bias": f"{block}.attn.in_proj_bias",
            "proj": f"{block}.attn.out_proj",
            "norm2": f"{block}.ln_2",
            "fc1": f"{block}.mlp.c_fc",
            "fc2": f"{block}.mlp.c_proj",
        }
        x, weights = slow_block(x, names, state, spec, 1e-5)
    return x[1:], weights[0, 1:]


def slow_timm(spec: TeacherSpec, state: dict[str, Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    x = patchify(pixels, state["trunk.patch_embed.proj.weight"], spec.patch_size)
    x = x + state["trunk.patch_embed.proj.bias"]
    x = torch.cat([state["trunk.cls_token"][0], x]) + state["trunk.pos_embed"][0]
    weights = torch.empty(0)
    for layer in range(spec.layers):
        block = f"trunk.blocks.{layer}"
        names = {
            "norm1": f"{block}.norm1",
            "qkv_weight": f"{block}.attn.qkv.weight",
            "qkv_bias": f"{block}.attn.qkv.bias",
            "proj": f"{block}.attn.proj",
            "norm2": f"{block}.norm2",
            "fc1": f"{block}.mlp.fc1",
            "fc2": f"{block}.mlp.fc2",
        }
        x, weights = slow_block(x, names, state, spec, 1e-6)
    return norm(x, state, "trunk.norm", 1e-6)[1:], weights[0, 1:]


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_open_clip_tower_equals_straight_line_forward(quick_gelu):
    spec = dataclasses.replace(MINI, quick_gelu=quick_gelu)
    teacher = make_teacher(spec)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    output = teacher.forward(pixels)
    assert output.patches.shape == (3, 16, 24)
    for image in range(3):
        patches, attention = slow_open_clip(spec, doubles(teacher), pixels[image].double())
        torch.testing.assert_close(output.patches[image].double(), patches, atol=5e-5, rtol=0)
        torch.testing.assert_close(output.attention[image].double(), attention, atol=1e-6, rtol=0)


def test_timm_tower_equals_straight_line_forward():
    teacher = make_teacher(MINI_TIMM)
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    output = teacher.forward(pixels)
    patches, attention = slow_timm(MINI_TIMM, doubles(teacher), pixels[0].double())
    torch.testing.assert_close(output.patches[0].double(), patches, atol=5e-5, rtol=0)
    torch.testing.assert_close(output.attention[0].double(), attention, atol=1e-6, rtol=0)


def test_attention_is_raw_and_excludes_the_cls_column():
    output = make_teacher(MINI).forward(torch.randn(2, 3, 32, 32))
    total = output.attention.sum(dim=1)
    assert (output.attention > 0).all()
    assert (total < 1 - 1e-3).all(), "the CLS column is dropped and the rest is not renormalized"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_and_returns_float32(dtype):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    full, half = make_teacher(MINI).forward(pixels), make_teacher(MINI, dtype).forward(pixels)
    assert half.patches.dtype == half.attention.dtype == torch.float32
    assert torch.cosine_similarity(full.patches, half.patches, dim=-1).min() > 0.999
    assert not torch.equal(full.patches, half.patches)
    torch.testing.assert_close(half.attention, full.attention, atol=2e-2, rtol=0)


def test_wrong_pixels_are_rejected_with_both_shapes():
    with pytest.raises(ValueError, match=r"\[B, 3, 32, 32\] pixels, not \[2, 3, 16, 16\]"):
        make_teacher(MINI).forward(torch.zeros(2, 3, 16, 16))


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(1, 9),
    heads=st.integers(1, 4),
    size=st.integers(1, 5),
    biased=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_cls_attention_is_row_zero_of_the_full_map(batch, tokens, heads, size, biased, seed):
    random = torch.Generator().manual_seed(seed)
    width = heads * size
    x = torch.randn(batch, tokens, width, generator=random)
    weight = torch.randn(3 * width, width, generator=random)
    bias = torch.randn(3 * width, generator=random) if biased else None
    query, key, _ = torch.nn.functional.linear(x, weight, bias).chunk(3, dim=-1)
    split = (batch, tokens, heads, size)
    query, key = query.view(split).transpose(1, 2), key.view(split).transpose(1, 2)
    full = (query @ key.transpose(-1, -2) / size**0.5).softmax(-1).mean(1)
    torch.testing.assert_close(cls_attention(x, weight, bias, heads), full[:, 0], atol=1e-5, rtol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements of any tensor that an operation creates."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_cls_attention_never_creates_a_full_map():
    batch, tokens, heads, width = 2, 300, 4, 16
    x, weight = torch.randn(batch, tokens, width), torch.randn(3 * width, width)
    with LargestTensor() as largest:
        cls_attention(x, weight, None, heads)
    assert 0 < largest.elements <= batch * tokens * max(width, heads)

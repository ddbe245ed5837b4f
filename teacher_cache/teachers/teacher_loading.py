"""Loading a teacher from its name and a weights file."""

from pathlib import Path

import torch
from torch import nn

from ...errors import SettingsError
from ...plain_text import quoted_error
from ...suggestions import suggestion
from .checkpoint_fit import image_tower_state
from .forward import DTYPES, Teacher
from .registry import teacher_spec
from .teacher_weights import read_checkpoint
from .towers import build_tower


def load_teacher(name: str, weights: str | Path, device: str | torch.device = "cpu", dtype: str = "float32") -> Teacher:
    """Load the image tower of teacher `name` strictly; it is frozen and in evaluation mode.

    `weights` is a file, an open_clip model folder or `hf-hub:OWNER/NAME`; its text tower is ignored. `dtype` is the
    precision of the matrix products.

    Raises:
        SettingsError: unknown teacher, dtype or device.
        InputError: the weights cannot be read or are not exactly this teacher's.
    """
    spec = teacher_spec(name)
    if dtype not in DTYPES:
        raise SettingsError(f"unknown dtype {dtype!r}{suggestion(dtype, DTYPES)}; choose one of {', '.join(DTYPES)}")
    torch_device = _device(device)
    checkpoint = read_checkpoint(weights)
    with torch.device("meta"):  # skips the random initialization, which the weights would replace
        tower = build_tower(spec)
    expected = {key: tuple(value.shape) for key, value in tower.state_dict().items()}
    state = image_tower_state(spec, checkpoint, expected)
    tower.load_state_dict({key: value.float() for key, value in state.items()}, strict=True, assign=True)
    return Teacher(
        spec=spec,
        tower=_frozen(tower, torch_device),
        device=torch_device,
        dtype=dtype,
        weights_sha256=checkpoint.sha256,
    )


def _device(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        reason = quoted_error(error, 80)
        raise SettingsError(f"cannot use device {str(device)!r}: pass cpu, cuda, cuda:1 or mps ({reason})") from error
    return chosen


def _frozen(tower: nn.Module, device: torch.device) -> nn.Module:
    assert not any(tensor.is_meta for tensor in (*tower.parameters(), *tower.buffers()))
    return tower.to(device).requires_grad_(False).eval()

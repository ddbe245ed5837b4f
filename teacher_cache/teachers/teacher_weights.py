"""Finding, hashing and reading untrusted weight files without running code in them; only tensors are kept."""

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...digests import sha256_of
from ...errors import InputError
from ...plain_text import size_text

HUB_PREFIX = "hf-hub:"
_CONFIG_NAME = "open_clip_config.json"
_FOLDER_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_DATA_PARALLEL_PREFIX = "module."


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """All tensors of a weights file by name, without DataParallel's `module.` prefix."""

    path: Path
    sha256: str
    """SHA-256 of the file's bytes."""
    tensors: dict[str, Tensor]


def read_checkpoint(weights: str | Path) -> Checkpoint:
    """Read a weights file, an open_clip model folder, or `hf-hub:OWNER/NAME`.

    Raises:
        InputError: the file does not exist, is damaged, is neither a torch file nor safetensors, or is a pickle that
            contains Python objects other than tensors.
    """
    path = _find(weights)
    tensors = _tensors(_load(path), path)
    names = [name.removeprefix(_DATA_PARALLEL_PREFIX) for name in tensors]
    return Checkpoint(path=path, sha256=sha256_of(path), tensors=dict(zip(names, tensors.values(), strict=True)))


def _find(weights: str | Path) -> Path:
    if str(weights).startswith(HUB_PREFIX):
        return _from_hub(str(weights))
    path = Path(weights)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"no weights at {path}: pass a file, an open_clip model folder, or hf-hub:OWNER/NAME")
    for name in _FOLDER_NAMES:
        if (path / name).is_file():
            return path / name
    present = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise InputError(
        f"{path} is not an open_clip model folder: it contains {present}. Expected {_CONFIG_NAME} and one of "
        + ", ".join(_FOLDER_NAMES)
    )


def _from_hub(model: str) -> Path:
    from open_clip.pretrained import download_pretrained_from_hf

    try:
        return Path(download_pretrained_from_hf(model.removeprefix(HUB_PREFIX)))
    except Exception as error:  # huggingface_hub raises its own exceptions and those of httpx
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise InputError(
            f"cannot download {model}: {reason}. On a machine without network, copy the model's {_CONFIG_NAME} "
            "and weights into a folder and pass that folder as --weights"
        ) from error


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(9)
    if len(head) == 9 and head[8:] == b"{":
        return _load_safetensors(path)
    if head.startswith(b"PK") or head[:1] == b"\x80":
        return _load_torch(path)
    raise InputError(
        f"{path} is neither a torch file nor safetensors ({size_text(path.stat().st_size)}, starts with "
        f"{head[:8]!r}); it "
        "may be an HTML page or a Git LFS pointer that was saved instead of the weights: download it again"
    )


def _load_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _load_torch(path: Path) -> Any:
    """Load with torch's restricted unpickler; a zip file is memory-mapped, so the text tower is never read."""
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _refuse_torchscript(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} contains other Python objects than tensors, and unpickling them could run code, so medalign does "
            f"not load it ({_first_line(error)}). If you trust its source, extract the tensors: python -c "
            f'"import '
            f"torch; c = torch.load('{path}', map_location='cpu', weights_only=False); "
            "torch.save({'state_dict': dict(c['state_dict'])}, 'tensors-only.pt')\""
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error


def _refuse_torchscript(path: Path) -> None:
    """Reject TorchScript archives, which torch would load with a warning, whatever `weights_only` is."""
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise InputError(
                f"{path} is a TorchScript archive, like OpenAI's CLIP files, but medalign's teachers are state dicts. "
                "Check that this is the right medical checkpoint"
            )


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is damaged or truncated ({size_text(path.stat().st_size)}): {_first_line(error)}. Download it "
        "again and "
        "compare its SHA-256 with the one that the source publishes"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200]


def _tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The mapping from names to tensors, either the whole file or its `state_dict` entry."""
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if isinstance(inner, dict) and inner and all(isinstance(value, Tensor) for value in inner.values()):
        return inner
    content = f"a dict with {', '.join(map(str, list(inner)[:5]))}" if isinstance(inner, dict) else type(inner).__name__
    raise InputError(f"{path} has no state dict of tensors: it contains {content}")

"""Checking that a checkpoint fits a teacher exactly, and identifying it if it does not.

The upstream loader ignores missing and unexpected names, so it silently loads a wrong architecture.
"""

from torch import Tensor

from ...errors import InputError
from ...plain_text import counted
from .registry import TEACHERS, TeacherSpec
from .teacher_weights import Checkpoint

_IMAGE_PREFIX = "visual."
_OPENAI_TEXT = ("token_embedding.weight", "text_projection")
_SHOWN = 3


def image_tower_state(
    spec: TeacherSpec, checkpoint: Checkpoint, expected: dict[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Select the image tower's tensors; their names without prefix must be exactly the `expected` ones.

    A text tower is dropped. A file without any `visual.` name is treated as a bare image tower.

    Raises:
        InputError: names or shapes differ, or it is the general-domain CLIP from which a medical teacher was trained;
            the message says what the file looks like and which command would fit.
    """
    tensors = checkpoint.tensors
    state = {
        name.removeprefix(_IMAGE_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_IMAGE_PREFIX)
    } or dict(tensors)
    problems = _problems(state, expected)
    if problems or _is_openai_clip(checkpoint):
        raise InputError(_mismatch_message(spec, checkpoint, problems))
    return state


def looks_like(tensors: dict[str, Tensor]) -> tuple[str, TeacherSpec | None]:
    """Describe a file's content based on names and shapes; also returns the teacher that it fits, if any."""
    names = tensors.keys()
    shape = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if any(name.startswith("visual.trunk.") for name in names):
        return _by_positions(shape.get("visual.trunk.pos_embed"), timm=True)
    if any(name.startswith("vision_model.") for name in names):
        return "a transformers CLIP checkpoint (vision_model.*), not one in open_clip's format", None
    if any(name.startswith(("model.layers.", "model.language_model.", "language_model.")) for name in names):
        return "a language model, not an image teacher", None
    if all(name in names for name in _OPENAI_TEXT):
        return "a complete general-domain CLIP with OpenAI's text tower, not a medical teacher", None
    positions = shape.get("visual.positional_embedding", shape.get("positional_embedding"))
    if positions is not None:
        return _by_positions(positions, timm=False)
    if any(name.startswith(("text_encoder.", "text.", "bert.", "encoder.layer.")) for name in names):
        return "only a text tower", None
    return f"a file without a CLIP image tower ({counted(len(names), 'tensor')}; first: {next(iter(names))})", None


def _by_positions(positions: tuple[int, ...] | None, *, timm: bool) -> tuple[str, TeacherSpec | None]:
    """Recognize a teacher by its positional embedding, [tokens, width]."""
    flat = None if positions is None else positions[-2:]
    for spec in TEACHERS.values():
        if bool(spec.timm_name) == timm and flat == (spec.grid.patches + 1, spec.width):
            return f"{spec.name} ({spec.title})", spec
    kind = "a timm ViT" if timm else "an open_clip VisionTransformer"
    return f"{kind} with positional embedding {list(flat or ())}, which no medalign teacher has", None


def _is_openai_clip(checkpoint: Checkpoint) -> bool:
    """Whether it is OpenAI's ViT-L/14-336 or ViT-B/16, whose image tower has the names and shapes of UniMed-CLIP's."""
    return all(name in checkpoint.tensors for name in _OPENAI_TEXT)


def _problems(state: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> list[str]:
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    reshaped = [
        f"{name} has shape {list(state[name].shape)}, but should have {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("with the wrong shape", reshaped)]
    return [f"{len(names)} {what} ({_shortened(names)})" for what, names in problems if names]


def _shortened(names: list[str]) -> str:
    return "; ".join(names[:_SHOWN]) + ("; ..." if len(names) > _SHOWN else "")


def _mismatch_message(spec: TeacherSpec, checkpoint: Checkpoint, problems: list[str]) -> str:
    description, other = looks_like(checkpoint.tensors)
    message = f"{checkpoint.path} is not {spec.name} ({spec.title}). It looks like {description}."
    if problems:
        message += f" Tensors of the image tower: {', '.join(problems)}."
    if other is not None and other != spec:
        return f"{message} To use it, pass --teacher {other.name} --weights {checkpoint.path}"
    return f"{message} --teacher {spec.name} expects --weights {spec.weights_hint}"

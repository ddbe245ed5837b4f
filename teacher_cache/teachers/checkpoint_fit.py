"""Does a checkpoint fit a teacher exactly, and if not, what is it?

Upstream's loader ignores missing and unexpected names, so a wrong architecture loads silently there.
"""

from torch import Tensor

from ...errors import InputError
from .registry import TEACHERS, TeacherSpec
from .teacher_weights import Checkpoint

_IMAGE_PREFIX = "visual."
_OPENAI_TEXT = ("token_embedding.weight", "text_projection")
_SHOWN = 3


def image_tower_state(
    spec: TeacherSpec, checkpoint: Checkpoint, expected: dict[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The image tower's tensors under the tower's own names, which are exactly the `expected` ones.

    Text towers are dropped. A file without any `visual.` name is taken to be an image tower by itself.

    Raises:
        InputError: names or shapes differ, or it is the general-domain CLIP that a medical teacher started
            from; the message says what the file looks like and which command would fit.
    """
    tensors = checkpoint.tensors
    state = {
        name.removeprefix(_IMAGE_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_IMAGE_PREFIX)
    } or dict(tensors)
    problems = _problems(state, expected)
    if problems or _is_openai_clip(checkpoint):
        raise InputError(_misfit(spec, checkpoint, problems))
    return state


def looks_like(tensors: dict[str, Tensor]) -> tuple[str, TeacherSpec | None]:
    """Say in words what a file holds, judged by names and shapes, and which teacher that is, if any."""
    names = tensors.keys()
    shape = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if any(name.startswith("visual.trunk.") for name in names):
        return _by_positions(shape.get("visual.trunk.pos_embed"), timm=True)
    if any(name.startswith("vision_model.") for name in names):
        return "a transformers CLIP checkpoint (vision_model.*), which is not open_clip's format", None
    if any(name.startswith(("model.layers.", "model.language_model.", "language_model.")) for name in names):
        return "a language model, not an image teacher", None
    if all(name in names for name in _OPENAI_TEXT):
        return "an entire general-domain CLIP with OpenAI's text tower, not a medical teacher", None
    positions = shape.get("visual.positional_embedding", shape.get("positional_embedding"))
    if positions is not None:
        return _by_positions(positions, timm=False)
    if any(name.startswith(("text_encoder.", "text.", "bert.", "encoder.layer.")) for name in names):
        return "a text tower alone", None
    return f"no CLIP image tower ({len(names)} tensors, the first is {next(iter(names))})", None


def _by_positions(positions: tuple[int, ...] | None, *, timm: bool) -> tuple[str, TeacherSpec | None]:
    """Recognise a teacher by its positional embedding, [tokens, width]."""
    flat = None if positions is None else positions[-2:]
    for spec in TEACHERS.values():
        if bool(spec.timm_name) == timm and flat == (spec.grid.patches + 1, spec.width):
            return f"{spec.name} ({spec.title})", spec
    kind = "timm ViT" if timm else "open_clip VisionTransformer"
    return f"a {kind} with positions of {list(flat or ())}, which no teacher of medalign has", None


def _is_openai_clip(checkpoint: Checkpoint) -> bool:
    """OpenAI's ViT-L/14-336 and ViT-B/16 have UniMed-CLIP's image tower, name by name and shape by shape."""
    return all(name in checkpoint.tensors for name in _OPENAI_TEXT)


def _problems(state: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> list[str]:
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    reshaped = [
        f"{name} is {list(state[name].shape)} and should be {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped)]
    return [f"{len(found)} {what} ({_some(found)})" for what, found in problems if found]


def _some(names: list[str]) -> str:
    return "; ".join(names[:_SHOWN]) + ("; ..." if len(names) > _SHOWN else "")


def _misfit(spec: TeacherSpec, checkpoint: Checkpoint, problems: list[str]) -> str:
    description, found = looks_like(checkpoint.tensors)
    message = f"{checkpoint.path} is not {spec.name} ({spec.title}). It looks like {description}."
    if problems:
        message += f" Tensors of the image tower: {', '.join(problems)}."
    if found is not None and found != spec:
        command = f"medalign teacher extract --teacher {found.name} --weights {checkpoint.path} ..."
        return f"{message} To use it: {command}"
    return f"{message} --teacher {spec.name} expects --weights {spec.weights_hint}"

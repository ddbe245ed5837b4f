"""The vision tower of an original checkpoint: its shape, its own weights, and how its images are normalised."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig

from ....errors import InputError
from ...file_errors import is_file, read_object, reading
from ...inputs.image_processing import check_grid
from .original_format import KNOWN_TOWERS

CLIP_TYPES = ("clip", "clip_vision_model")


@dataclass(frozen=True, kw_only=True, slots=True)
class TowerFolder:
    """What is known of a tower apart from the tensors in the checkpoint's own files."""

    name: str
    """`mm_vision_tower` of config.json."""
    folder: Path | None
    """Folder inside the model folder that describes the tower, and may hold its weights."""
    config: CLIPVisionConfig


def find_tower(folder: Path, config: dict[str, Any]) -> TowerFolder:
    """Read the tower's shape from its folder inside `folder`, else from the table of known towers.

    Nothing outside the model folder is read, and nothing is fetched: where config.json names another model's tower,
    only the name is used.

    Raises:
        InputError: config.json names no tower, or one whose shape is neither in the folder nor known.
    """
    name = config.get("mm_vision_tower")
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder}/config.json names no vision tower (mm_vision_tower is {name!r})")
    inside = _tower_folder(folder, name)
    if inside is not None:
        return TowerFolder(name=name, folder=inside, config=_read_config(inside))
    known = KNOWN_TOWERS.get(_plain_name(name))
    if known is None:
        raise InputError(
            f"{folder}: its vision tower is {name!r}, and the folder has no config.json of it; known without one: "
            f"{', '.join(sorted(KNOWN_TOWERS))}. Put the tower's config.json at {folder / 'vit' / Path(name).name}"
        )
    return TowerFolder(name=name, folder=None, config=CLIPVisionConfig(**known))


def _plain_name(name: str) -> str:
    return Path(name).name.lower().replace("_", "-")


def _tower_folder(folder: Path, name: str) -> Path | None:
    """The first place inside `folder` where a tower of this name is described."""
    places = [folder / name, folder / "vit" / Path(name).name, folder / Path(name).name]
    root = folder.resolve()
    inside = [place for place in places if place.resolve().is_relative_to(root) and place.resolve() != root]
    return next((place for place in inside if is_file(place / "config.json")), None)


def _read_config(folder: Path) -> CLIPVisionConfig:
    values = read_object(folder / "config.json")
    kind = values.get("model_type")
    if kind not in CLIP_TYPES:
        raise InputError(f"{folder} holds a {kind!r} model; a LLaVA's vision tower is a CLIP ({', '.join(CLIP_TYPES)})")
    with reading(folder / "config.json"):
        config = CLIPVisionConfig.from_dict(values["vision_config"] if kind == "clip" else values)
    check_grid(folder, config)
    return config

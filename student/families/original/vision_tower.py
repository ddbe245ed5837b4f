"""The vision tower of an original checkpoint: its configuration and its folder."""

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
    """Name, folder and configuration of a tower."""

    name: str
    """`mm_vision_tower` of config.json."""
    folder: Path | None
    """Folder inside the model folder with the tower's config.json, and possibly its weights."""
    config: CLIPVisionConfig


def find_tower(folder: Path, config: dict[str, Any]) -> TowerFolder:
    """Read the tower's configuration from its folder inside `folder`, else from the table of known towers.

    Nothing outside the model folder is read or downloaded: if config.json refers to another model's tower, only its
    name is used.

    Raises:
        InputError: config.json names no tower, or the tower's configuration is neither in the folder nor known.
    """
    name = config.get("mm_vision_tower")
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder}/config.json does not name a vision tower (mm_vision_tower is {name!r})")
    inside = _tower_folder(folder, name)
    if inside is not None:
        return TowerFolder(name=name, folder=inside, config=_read_config(inside))
    known = KNOWN_TOWERS.get(_plain_name(name))
    if known is None:
        raise InputError(
            f"{folder}: the vision tower is {name!r}, but the folder has no config.json for it. Without one, medalign "
            f"knows only {', '.join(sorted(KNOWN_TOWERS))}. Put the tower's config.json in "
            f"{folder / 'vit' / Path(name).name}"
        )
    return TowerFolder(name=name, folder=None, config=CLIPVisionConfig(**known))


def _plain_name(name: str) -> str:
    return Path(name).name.lower().replace("_", "-")


def _tower_folder(folder: Path, name: str) -> Path | None:
    """Return the first folder inside `folder` that describes a tower of this name."""
    candidates = [folder / name, folder / "vit" / Path(name).name, folder / Path(name).name]
    root = folder.resolve()
    inside = [path for path in candidates if path.resolve().is_relative_to(root) and path.resolve() != root]
    return next((path for path in inside if is_file(path / "config.json")), None)


def _read_config(folder: Path) -> CLIPVisionConfig:
    values = read_object(folder / "config.json")
    kind = values.get("model_type")
    if kind not in CLIP_TYPES:
        raise InputError(
            f"{folder} contains a {kind!r} model; a LLaVA's vision tower must be a CLIP ({', '.join(CLIP_TYPES)})"
        )
    with reading(folder / "config.json"):
        config = CLIPVisionConfig.from_dict(values["vision_config"] if kind == "clip" else values)
    check_grid(folder, config)
    return config

"""Strict mapping of a checkpoint's tensors to the model: none missing, none unexpected, every shape correct."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ....errors import InputError
from .original_format import COMPUTED, Rename, guess_origin, to_original, to_transformers

Shape = tuple[int, ...]

_LAYER = re.compile(r"(?<=\.layers\.)\d+(?=\.)")


def match_tensors(
    stored: Mapping[str, Shape], expected: Mapping[str, Shape], renames: Iterable[Rename], where: str
) -> dict[str, str]:
    """Map every tensor of a checkpoint to transformers' key; buffers that follow from config.json are ignored.

    Args:
        stored: original names and shapes in the checkpoint.
        expected: keys and shapes of transformers' model.
        renames: the family's renames.
        where: the checkpoint and its family, for the message.

    Raises:
        InputError: lists all tensors that are missing, unexpected or of the wrong shape, by their original names.
    """
    renames = tuple(renames)
    weights = {name: to_transformers(name, renames) or "" for name in stored if not name.endswith(COMPUTED)}
    originals = {key: to_original(key, renames) for key in expected}
    missing = [name for name in originals.values() if name not in weights]
    unexpected = [name for name, key in weights.items() if key not in expected]
    wrong = [
        f"{name} is {list(stored[name])}, but {list(expected[key])} according to config.json"
        for name, key in weights.items()
        if key in expected and tuple(stored[name]) != tuple(expected[key])
    ]
    lines = [f"  missing: {name}" for name in _grouped(missing)]
    lines += [f"  unexpected: {name}" for name in _grouped(unexpected)]
    lines += [f"  wrong shape: {text}" for text in wrong]
    if lines:
        raise InputError(
            f"{where}: the weights do not match config.json ({len(missing)} missing, {len(unexpected)} unexpected, "
            f"{len(wrong)} of the wrong shape). They look like {guess_origin(stored)}\n" + "\n".join(lines)
        )
    return weights


def _grouped(names: Iterable[str]) -> list[str]:
    """List names in order, with one line for names that differ only in the layer index."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_LAYER.sub("*", name)].append(name)
    lines = []
    for pattern, members in groups.items():
        if len(members) == 1:
            lines += members
        else:
            layers = sorted(int(match.group()) for name in members if (match := _LAYER.search(name)))
            lines.append(f"{pattern} ({len(members)} layers: {_ranges(layers)})")
    return lines


def _ranges(numbers: list[int]) -> str:
    """Format numbers as ranges: `0-3, 7` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

"""Every tensor of a checkpoint to its place in the model, strictly: none missing, none left over, every shape right."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ....errors import InputError
from .original_format import COMPUTED, Rename, guess_origin, to_original, to_transformers

Shape = tuple[int, ...]

_LAYER = re.compile(r"(?<=\.layers\.)\d+(?=\.)")


def match_tensors(
    found: Mapping[str, Shape], expected: Mapping[str, Shape], renames: Iterable[Rename], where: str
) -> dict[str, str]:
    """Transformers' key of every tensor of a checkpoint; buffers that follow from config.json are left out.

    Args:
        found: original names and shapes in the checkpoint.
        expected: keys and shapes of transformers' model.
        renames: the family's table.
        where: the checkpoint and its family, for the message.

    Raises:
        InputError: all that is missing, left over or of another shape, by its original name.
    """
    renames = tuple(renames)
    weights = {name: to_transformers(name, renames) or "" for name in found if not name.endswith(COMPUTED)}
    originals = {key: to_original(key, renames) for key in expected}
    missing = [name for name in originals.values() if name not in weights]
    left_over = [name for name, key in weights.items() if key not in expected]
    wrong = [
        f"{name} is {list(found[name])}, config.json makes it {list(expected[key])}"
        for name, key in weights.items()
        if key in expected and tuple(found[name]) != tuple(expected[key])
    ]
    lines = [f"  missing: {name}" for name in _grouped(missing)]
    lines += [f"  left over: {name}" for name in _grouped(left_over)]
    lines += [f"  wrong shape: {text}" for text in wrong]
    if lines:
        raise InputError(
            f"{where}: its weights do not fit ({len(missing)} missing, {len(left_over)} left over, {len(wrong)} of "
            f"another shape); they look like {guess_origin(found)}\n" + "\n".join(lines)
        )
    return weights


def _grouped(names: Iterable[str]) -> list[str]:
    """Names in order; those that differ by their layer's number alone become one line, with all the numbers."""
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
    """`0-3, 7` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

"""Attention maps of a grounding run on disk: `attention.npy`, float32, [questions, layers, patches].

The file has its final size from the start and holds nan where no question has been asked yet, so a run that was killed
goes on with the first batch that is not whole.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ...atomic import AtomicFile, remove_leftovers
from ...errors import InputError
from ...progress import Progress
from ...student.data import Sample
from ...student.file_errors import is_file, reading, writing

MAPS_FILE = "attention.npy"

Maps = Float[np.ndarray, "questions layers patches"]


def fill_maps(
    path: Path,
    samples: Sequence[Sample],
    shape: tuple[int, int],
    ask: Callable[[Sequence[Sample]], Float[Tensor, "batch layers patches"]],
    *,
    batch_size: int,
    progress: Progress,
) -> Maps:
    """Ask for the maps of every batch that the file does not have yet; all maps, read from the file.

    Raises:
        InputError: the student's attention is not finite, or the file is of something else.
    """
    maps = _open(path, (len(samples), *shape))
    progress.start("reading attention", len(samples))
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        rows = maps[start : start + len(batch)]
        if not np.isfinite(rows).all():
            found = ask(batch).numpy()
            if not np.isfinite(found).all():
                raise InputError(
                    f"the student's attention on question {batch[0].question_id} or one of the {len(batch) - 1} after "
                    "it is not finite: its weights are, or --dtype is too narrow for them"
                )
            rows[...] = found
            maps.flush()
        progress.advance(len(batch))
    return maps


def _open(path: Path, shape: tuple[int, int, int]) -> np.memmap[tuple[int, int, int], np.dtype[np.float32]]:
    if not is_file(path):
        with writing(path):
            remove_leftovers(path)
            new = AtomicFile(path)
            try:
                empty = np.lib.format.open_memmap(new.temporary, mode="w+", dtype=np.float32, shape=shape)
                empty[...] = np.nan
                empty.flush()
                new.commit()
            except BaseException:
                new.abort()
                raise
    with reading(path):
        maps = np.lib.format.open_memmap(path, mode="r+")
    if maps.shape != shape or maps.dtype != np.float32:
        raise InputError(f"{path} holds {maps.shape} numbers ({maps.dtype}), not {shape} (float32): give another --out")
    return maps

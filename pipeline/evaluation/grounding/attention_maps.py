"""Attention maps of a grounding run on disk.

During a run, every batch has its own file in `maps/`, so that several processes can work on it and a killed one loses
only the current batch. At the end they are joined to `attention.npy`, float32, [questions, layers, patches].
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import safe_open
from safetensors.numpy import save

from ....atomic import AtomicFile, remove_leftovers
from ....errors import InputError
from ....student.file_errors import is_file, reading, writing
from ...runs.run_record import check_file_conditions
from ..batches.batch_work import BatchResult

MAPS_FILE = "attention.npy"
PARTS_FOLDER = "maps"
_MAPS, _CONDITIONS = "maps", "conditions"
_NAME = re.compile(r"([0-9]{8,})(?:-[0-9]+-of-([0-9]+))?(?:\.rank-[0-9]+)?\.safetensors")
"""The number of a batch, and the number of tasks of the run that wrote it."""
_REMOVE = "Remove the file, then run the command again with --resume; its batch is computed again"

Maps = Float[np.ndarray, "questions layers patches"]


class MapParts:
    """The maps of a run by batch."""

    def __init__(self, out: Path, questions: int, batch_size: int, shape: tuple[int, int], writer: str = "") -> None:
        """Read existing files; `shape` is that of one question's maps, `writer` is the suffix of this process's files.

        Raises:
            InputError: They are damaged, or from another run.
        """
        self._out, self._questions, self._size, self._shape, self._writer = out, questions, batch_size, shape, writer
        self._whole = self._read_whole()
        self._parts = {_batch(path): path for path in sorted((out / PARTS_FOLDER).glob("*.safetensors"))}
        self.conditions = {path: self._conditions(path) for path in self._parts.values()}

    @property
    def batches(self) -> int:
        return -(-self._questions // self._size)

    @property
    def missing(self) -> list[int]:
        """Batches without maps."""
        return [batch for batch in range(self.batches) if batch not in self._parts and not self._has(batch)]

    @property
    def tasks(self) -> set[int]:
        """The numbers of tasks (N of `--task I/N`) in the names of the files."""
        found = (_NAME.fullmatch(path.name) for path in self._parts.values())
        return {int(match[2]) for match in found if match and match[2]}

    def keep(self, result: BatchResult) -> None:
        """Write a batch of maps; it is on disk when this returns.

        Raises:
            MedalignError: It cannot be written; earlier batches are kept.
        """
        folder = self._out / PARTS_FOLDER
        path = folder / f"{result.job.batch:08d}{self._writer}.safetensors"
        metadata = {_CONDITIONS: json.dumps(asdict(result.conditions))}
        with writing(path):
            folder.mkdir(exist_ok=True)
            with AtomicFile(path) as file:
                file.write(save({_MAPS: np.stack(result.results)}, metadata))
        self._parts[result.job.batch] = path

    def join(self) -> Maps:
        """Join all maps in one file and read it; no batch may be missing.

        Raises:
            MedalignError: The file cannot be written, for example because the disk is full.
        """
        path = self._out / MAPS_FILE
        if self._parts:
            with writing(path):
                remove_leftovers(path)
                new = AtomicFile(path)
                try:
                    shape = (self._questions, *self._shape)
                    whole = np.lib.format.open_memmap(new.temporary, mode="w+", dtype=np.float32, shape=shape)
                    for batch in range(self.batches):
                        whole[self._rows(batch)] = self._read(batch)
                    whole.flush()
                    new.commit()
                except BaseException:
                    new.abort()
                    raise
        with reading(path):
            return np.lib.format.open_memmap(path, mode="r")

    def remove(self) -> None:
        """Delete the files of batches after everything is written."""
        shutil.rmtree(self._out / PARTS_FOLDER, ignore_errors=True)

    def _rows(self, batch: int) -> slice:
        return slice(batch * self._size, min((batch + 1) * self._size, self._questions))

    def _has(self, batch: int) -> bool:
        return self._whole is not None and bool(np.isfinite(self._whole[self._rows(batch)]).all())

    def _read(self, batch: int) -> Maps:
        rows = self._rows(batch)
        if batch not in self._parts:
            assert self._whole is not None
            return self._whole[rows]
        path = self._parts[batch]
        with reading(path), safe_open(path, framework="numpy") as file:
            maps: np.ndarray = file.get_tensor(_MAPS)
        self._check(path, maps, (rows.stop - rows.start, *self._shape))
        return maps

    def _read_whole(self) -> Maps | None:
        """The joined file; earlier versions created it at the start, with NaN for missing questions."""
        path = self._out / MAPS_FILE
        if not is_file(path):
            return None
        with reading(path):
            maps = np.lib.format.open_memmap(path, mode="r")
        self._check(path, maps, (self._questions, *self._shape))
        return maps

    @staticmethod
    def _check(path: Path, maps: np.ndarray, shape: Sequence[int]) -> None:
        if maps.shape != tuple(shape) or maps.dtype != np.float32:
            raise InputError(
                f"{path} has shape {maps.shape} ({maps.dtype}), expected {tuple(shape)} (float32): pass another --out"
            )

    @staticmethod
    def _conditions(path: Path) -> dict[str, Any]:
        with reading(path), safe_open(path, framework="numpy") as file:
            return check_file_conditions(json.loads(file.metadata()[_CONDITIONS]), path, _REMOVE)


def _batch(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise InputError(f"{path} is not a file of a grounding run: remove it, or pass another --out")
    return int(match[1])

"""Computing a teacher's targets for images without a store, in the same way as extraction."""

from collections.abc import Sequence

import numpy as np
import torch

from ...choices import Geometry
from ...errors import InputError
from ..geometry.patch_grid import PatchGrid
from ..geometry.pixels import to_pixel_batch
from ..geometry.square import fill_color, to_square
from ..images import ImageLike, decode_given
from ..store.format.profiles import decode
from ..store.reading.reader import TeacherTargets
from ..teachers.forward import Teacher, TeacherOutput


def compute_targets(
    teacher: Teacher, images: Sequence[ImageLike], *, grid: PatchGrid, geometry: Geometry, batch_size: int
) -> TeacherTargets:
    """Compute E_v and E_a of at least one image, on the CPU, exactly as a store of profile float32 would return them.

    Raises:
        InputError: an image cannot be read, or there is none.
    """
    if not images:
        raise InputError("there are no images: pass at least one")
    outputs = [
        _forward(teacher, images[start : start + batch_size], geometry) for start in range(0, len(images), batch_size)
    ]
    arrays = {
        "E_v": torch.cat([output.patches.cpu() for output in outputs]).numpy(),
        "E_a": torch.cat([output.attention.cpu() for output in outputs]).numpy(),
    }
    rows = decode("float32", arrays, teacher.spec.grid, grid)
    return TeacherTargets(rows.E_v, None, rows.E_a)


def _forward(teacher: Teacher, images: Sequence[ImageLike], geometry: Geometry) -> TeacherOutput:
    spec = teacher.spec
    fill = fill_color(spec.mean)
    squares = [np.asarray(to_square(decode_given(image).shown, spec.image_size, geometry, fill)) for image in images]
    pixels = to_pixel_batch(torch.from_numpy(np.stack(squares)).to(teacher.device), spec.mean, spec.std)
    return teacher.forward(pixels)

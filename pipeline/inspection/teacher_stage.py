"""The teacher's targets of an inspection's images."""

from dataclasses import dataclass

import torch
from jaxtyping import Int

from ...errors import StoreError
from ...progress import Progress
from ...student.inspection.token_capture import StageTokens, capture_teacher
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ...teacher_cache.store import TeacherStore, open_store
from ...teacher_cache.store.format.keyed_hashes import given_key
from .inspect_request import InspectRequest
from .inspected_images import InspectedImages
from .questions.asked_questions import TeacherMaps


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TeacherSide:
    """What the teacher says about the images."""

    store: TeacherStore
    stage: StageTokens | None
    """E_v; None from a Gram store."""
    maps: TeacherMaps
    """E_a."""


def open_fitting_store(request: InspectRequest, inspected: InspectedImages, grid: PatchGrid) -> TeacherStore | None:
    """Open the store of a request and check that it has the student's grid and a row for every image.

    Raises:
        StoreError: It cannot be read, or has another grid or geometry.
        MissingTeacherRow: Images have no row.
    """
    if request.store is None:
        return None
    store = open_store(request.store, given_key(request.hash_key))
    header = store.header
    if header.grid != grid or header.geometry != "pad":
        raise StoreError(
            f"the store {store.location} has grid {header.grid} and geometry {header.geometry!r}, but the student's "
            f"image tokens have grid {grid} on the padded image: pass a store that was extracted with --grid {grid}, "
            "or omit --store"
        )
    files = inspected.files
    missing = store.missing([image.image_hash for image in files], [image.pixel_hash for image in files])
    if missing:
        raise store.missing_error(missing, len(files))
    return store


def read_teacher_side(
    store: TeacherStore, inspected: InspectedImages, chosen: Int[torch.Tensor, "images chosen"], *, batch_size: int,
    progress: Progress,
) -> TeacherSide:  # fmt: skip
    """Read E_v and E_a of all images."""
    files = inspected.files
    stage, attention = capture_teacher(store, files, chosen, batch_size=batch_size, progress=progress)
    E_a = {image.image_hash: torch.from_numpy(row) for image, row in zip(files, attention, strict=True)}
    maps = TeacherMaps(E_a=E_a, grid=store.header.grid, geometry=store.header.geometry)
    return TeacherSide(store=store, stage=stage, maps=maps)

"""A teacher's attention E_a to images that a store holds, beside a student's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from ...student.alignment.losses import attention_alignment_loss
from ...student.inputs.views import ImageLayout, square_layout
from ...student.inspection.image_attention import ImageAttention
from ...teacher_cache.images import DecodedImage
from ...teacher_cache.store import open_store


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TeacherAttention:
    """E_a of one image."""

    name: str
    """The teacher's name."""
    E_a: Float[Tensor, " patches"]
    """Not normalized."""
    layout: ImageLayout

    def divergence(self, record: ImageAttention) -> dict[str, float] | None:
        """KL(E_a || M_a) of the sum-normalized maps at every layer, in nats; None if their cells differ."""
        if record.layout != self.layout:
            return None
        teacher = self.E_a.expand(len(record.layers), -1)
        values = attention_alignment_loss(record.maps, teacher, "sum").tolist()
        return {str(layer): value for layer, value in zip(record.layers, values, strict=True)}

    def mean_divergence(self, record: ImageAttention) -> float | None:
        """The same for the mean map, `record.mean`."""
        if record.layout != self.layout:
            return None
        return float(attention_alignment_loss(record.mean[None], self.E_a[None], "sum"))


def read_teacher(
    store: str | None, hash_key: Path | None, paths: Sequence[Path], images: Sequence[DecodedImage]
) -> list[TeacherAttention | None]:
    """E_a of every image; None for each without a store.

    Raises:
        MissingTeacherRow: An image has no row in the store.
        StoreError: The store cannot be read.
    """
    if store is None:
        return [None] * len(paths)
    opened = open_store(store, hash_key)
    header = opened.header
    return [
        TeacherAttention(
            name=header.teacher,
            E_a=opened.for_image(path).E_a,
            layout=square_layout(image.width, image.height, header.grid, header.geometry),
        )
        for path, image in zip(paths, images, strict=True)
    ]

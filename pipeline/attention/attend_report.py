"""What `medalign student attend` finds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...student.inspection.image_attention import ImageAttention
from .teacher_attention import TeacherAttention


@dataclass(frozen=True, kw_only=True, slots=True)
class AttendedImage:
    """One image with the attention to it."""

    path: Path
    picture: Image.Image
    """Upright, gray or RGB."""
    students: Mapping[str, ImageAttention]
    """With adapters: the base, then every adapter."""
    teacher: TeacherAttention | None

    @property
    def base(self) -> ImageAttention:
        """The attention of the first student."""
        return next(iter(self.students.values()))

    @property
    def adapters(self) -> dict[str, ImageAttention]:
        """The attention of the others."""
        return dict(list(self.students.items())[1:])


@dataclass(frozen=True, kw_only=True, slots=True)
class AttendReport:
    """What a student attends to, in every image of the question."""

    out: Path
    student: str
    """Name of the base's folder."""
    store: str | None
    """Name of the teacher store."""
    question: str
    template: str
    layers: tuple[int, ...]
    aligned_layers: tuple[int, ...]
    """Those of `layers` that were aligned in training."""
    images: tuple[AttendedImage, ...]
    warnings: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Values of JSON's types."""
        return {
            "out": str(self.out),
            "student": self.student,
            "store": self.store,
            "question": self.question,
            "template": self.template,
            "layers": list(self.layers),
            "aligned_layers": list(self.aligned_layers),
            "images": [_image_summary(image) for image in self.images],
            "warnings": list(self.warnings),
        }


def _image_summary(image: AttendedImage) -> dict[str, Any]:
    students = {name: record.summary() for name, record in image.students.items()}
    values: dict[str, Any] = {"image": str(image.path), "students": students}
    if image.adapters:
        values["moved_from_base"] = {name: record.moved_from(image.base) for name, record in image.adapters.items()}
    if image.teacher is not None:
        values["teacher"] = {
            "name": image.teacher.name,
            "kl": {name: image.teacher.divergence(record) for name, record in image.students.items()},
            "kl_of_mean_map": {name: image.teacher.mean_divergence(record) for name, record in image.students.items()},
        }
    return values

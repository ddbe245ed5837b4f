"""`medalign student attend`: read a student's attention to images for one question, and draw it.

Writes a new folder: `attention.png`, `report.html`, `attend.json`, and in `figures/` every figure as PNG and SVG, and
as Parquet with its data.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...atomic import write_whole
from ...choices import DtypeChoice
from ...errors import InputError, SettingsError
from ...progress import Progress
from ...student.folders.model_folder import check_new_folder, new_folder
from ...student.folders.student_facts import count_layers
from ...student.inspection.image_attention import ImageAttention, check_layers, check_question, read_attention
from ...student.loading.student_loading import Student, inference_dtype, load_student
from ...teacher_cache.images import DecodedImage, decode_given
from ..devices import pick_device
from ..runs.provenance import adapter_folder, template_warnings
from .attend_page import write_attention
from .attend_report import AttendedImage, AttendReport
from .teacher_attention import read_teacher

RESULT_FILE = "attend.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttendRequest:
    """The options of `medalign student attend`."""

    student: Path
    """Base model folder, or an adapter folder, which records its base."""
    adapter: Path | None = None
    images: tuple[Path, ...]
    question: str
    layers: str | None = None
    """Zero-based decoder layers, such as `3,7`; None: all."""
    store: str | None = None
    hash_key: Path | None = None
    template: str | None = None
    device: str | None = None
    dtype: DtypeChoice = "auto"


def run_attend(request: AttendRequest, out: Path, progress: Progress) -> AttendReport:
    """Read and draw the attention of a student; with an adapter, also that of its base.

    Raises:
        InputError: `out` is in use, the student or an image cannot be read, the prompt is too long, or attention is not
            finite.
        SettingsError: The question is empty, or a layer, device or template does not exist.
        StoreError: The store cannot be read, or has no row for an image.
    """
    check_new_folder(out)
    check_question(request.question)
    adapter = adapter_folder(request.student, request.adapter)
    layers = check_layers(_parse_layers(request.layers), count_layers(request.student, request.adapter))
    missing = [path for path in request.images if not path.is_file()]
    if missing:
        raise InputError(f"image not found: {', '.join(map(str, missing))}")
    decoded = [decode_given(path) for path in request.images]
    teachers = read_teacher(request.store, request.hash_key, request.images, decoded)
    seen, student = _ask(request, adapter, layers, decoded, progress)
    report = AttendReport(
        out=out,
        question=request.question,
        template=student.template_name,
        layers=layers,
        aligned_layers=next(reversed(seen.values()))[0].aligned_layers,
        images=tuple(
            AttendedImage(
                path=path,
                picture=image.shown,
                students={name: records[number] for name, records in seen.items()},
                teacher=teacher,
            )
            for number, (path, image, teacher) in enumerate(zip(request.images, decoded, teachers, strict=True))
        ),
        warnings=tuple(template_warnings(student)),
    )
    with new_folder(out) as folder:
        write_attention(folder, report, progress)
        write_whole(folder / RESULT_FILE, json.dumps(report.summary(), indent=2) + "\n")
    return report


def _ask(
    request: AttendRequest,
    adapter: Path | None,
    layers: Sequence[int],
    images: Sequence[DecodedImage],
    progress: Progress,
) -> tuple[dict[str, tuple[ImageAttention, ...]], Student]:
    """The attention of every student by name, and the one that was asked for."""
    progress.start("reading attention", 1 if adapter is None else 2)
    device = pick_device(request.device)
    student = load_student(
        request.student, adapter=request.adapter, device=device, dtype=request.dtype, template=request.template
    )
    records = read_attention(student, images, request.question, layers)
    progress.advance()
    if adapter is None:
        return {"student": records}, student
    name = adapter.resolve().name
    dtype = inference_dtype(student.base, student.adapter, request.dtype)
    base = load_student(student.base, device=device, dtype=dtype, template=student.template_name)
    before = read_attention(base, images, request.question, layers)
    progress.advance()
    return {"base": before, "base with adapter" if name == "base" else name: records}, student


def _parse_layers(text: str | None) -> list[int] | None:
    """Layer numbers such as `3,7`.

    Raises:
        SettingsError: The text is something else.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"-?[0-9]{1,6}", part) for part in parts):
        raise SettingsError(f"--layers {text!r} is not a list of layer numbers such as 3,7")
    return [int(part) for part in parts]

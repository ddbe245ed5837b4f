"""`medalign student attend`: read a student's attention to images for one question, and draw it.

Writes a new folder: `attention.png`, `report.html`, `attend.json`, and in `figures/` every figure as PNG and SVG, and
as Parquet with its data.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...atomic import write_whole
from ...choices import DtypeChoice
from ...errors import InputError, SettingsError
from ...plain_text import is_url
from ...progress import Progress
from ...student.adapters.adapter_folder import read_adapter_record
from ...student.folders.model_folder import new_folder
from ...student.folders.student_facts import count_layers
from ...student.inspection.image_attention import ImageAttention, check_layers, check_question, read_attention
from ...student.loading.student_loading import inference_dtype, load_student
from ...teacher_cache.images import DecodedImage, as_stored, decode_given
from ..devices import pick_device
from ..inspection.arms import BASE, arm_names, find_folders
from ..reports.report_folder import check_report_folder
from ..runs.provenance import template_warnings
from .attend_page import write_attention
from .attend_report import AttendedImage, AttendReport
from .teacher_attention import TeacherAttention, read_teacher

RESULT_FILE = "attend.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttendRequest:
    """The options of `medalign student attend`."""

    student: Path
    """Base model folder, or an adapter folder, which records its base."""
    adapters: tuple[Path, ...] = ()
    """Adapters of the same base, each compared with the base."""
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
    """Read and draw the attention of a student; with adapters, of their base and each of them.

    Raises:
        InputError: `out` is in use, a student or an image cannot be read, an adapter is listed twice, the prompt is too
            long, or attention is not finite.
        SettingsError: The question is empty, `out` has the name of a file, a layer, device or template does not exist,
            or there is a key without a store.
        StoreError: The store cannot be read, or has no row for an image.
    """
    check_report_folder(out)
    request = replace(request, images=tuple(map(as_stored, request.images)))
    check_question(request.question)
    base, adapters = find_folders(request.student, request.adapters)
    layers = check_layers(_parse_layers(request.layers), count_layers(base, None))
    if request.hash_key is not None and request.store is None:
        raise SettingsError("--hash-key is the key of a store: pass --store with it")
    _require_images(request.images)
    decoded = [decode_given(path) for path in request.images]
    teachers = read_teacher(request.store, request.hash_key, request.images, decoded)
    with new_folder(out) as folder:  # before any slow step, so that a folder that cannot be written is reported early
        asked = _ask(request, base, adapters, layers, decoded, progress)
        report = _report(request, out, base, layers, asked, decoded, teachers)
        write_attention(folder, report, progress)
        write_whole(folder / RESULT_FILE, json.dumps(report.summary(), indent=2) + "\n")
    return report


def _require_images(paths: Sequence[Path]) -> None:
    """Check that all images are there, before any of them is read.

    Raises:
        InputError: Some are missing, or are folders.
    """
    folders = [str(path) for path in paths if path.is_dir()]
    if folders:
        raise InputError(f"{', '.join(folders)}: a folder, not an image. Pass image files, each with its own --image")
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"image not found: {', '.join(missing)}")


def _name(store: str) -> str:
    """The last part of a store's path or URL, without its query."""
    location = store.partition("?")[0] if is_url(store) else str(Path(store).resolve())
    return location.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """The attention of one student to every image."""

    records: tuple[ImageAttention, ...]
    template: str
    warnings: tuple[str, ...]


def _report(
    request: AttendRequest,
    out: Path,
    base: Path,
    layers: tuple[int, ...],
    asked: Mapping[str, _Asked],
    decoded: Sequence[DecodedImage],
    teachers: Sequence[TeacherAttention | None],
) -> AttendReport:
    first = next(iter(asked.values()))
    aligned = {layer for found in asked.values() for layer in found.records[0].aligned_layers}
    return AttendReport(
        out=out,
        student=base.resolve().name,
        store=None if request.store is None else _name(request.store),
        question=request.question,
        template=first.template,
        layers=layers,
        aligned_layers=tuple(layer for layer in layers if layer in aligned),
        images=tuple(
            AttendedImage(
                path=path,
                picture=image.shown,
                students={name: found.records[number] for name, found in asked.items()},
                teacher=teacher,
            )
            for number, (path, image, teacher) in enumerate(zip(request.images, decoded, teachers, strict=True))
        ),
        warnings=first.warnings,
    )


def _ask(
    request: AttendRequest,
    base: Path,
    adapters: Sequence[Path],
    layers: Sequence[int],
    images: Sequence[DecodedImage],
    progress: Progress,
) -> dict[str, _Asked]:
    """The attention of every student by name: `student`, or the base and its adapters, with the same prompt."""
    device = pick_device(request.device)
    template, dtype = request.template, request.dtype
    if adapters:
        record = read_adapter_record(adapters[0])
        template, dtype = template or record.template, inference_dtype(base, record, dtype)
    names = [BASE, *arm_names(adapters)] if adapters else ["student"]
    progress.start("reading attention", len(names))
    asked = {}
    for name, adapter in zip(names, (None, *adapters), strict=True):
        student = load_student(base, adapter=adapter, device=device, dtype=dtype, template=template)
        asked[name] = _Asked(
            records=read_attention(student, images, request.question, layers),
            template=student.template_name,
            warnings=tuple(template_warnings(student)),
        )
        del student  # before the next one is loaded
        progress.advance()
    return asked


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

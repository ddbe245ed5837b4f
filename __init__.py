"""medalign: alignment distillation from medical CLIP teachers into medical vision-language students.

Stage one runs a teacher once over every image and writes its patch features E_v and attention E_a to a store
(`extract`, `open_store`, `load_teacher`). Stage two trains a LoRA student from that store (`train`), or its vision
tower without labels (`align`), asks it (`load_student`) and measures it (`evaluate`, `compare`). Importing this package
loads none of torch, zarr, transformers and numpy: each name is imported when it is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api.alignment import align as align
    from .api.evaluation import compare as compare
    from .api.evaluation import evaluate as evaluate
    from .api.extraction import extract as extract
    from .api.inspection import inspect as inspect
    from .api.students import Student as Student
    from .api.students import load_student as load_student
    from .api.studies import study as study
    from .api.teachers import Teacher as Teacher
    from .api.teachers import load_teacher as load_teacher
    from .api.training import train as train
    from .errors import InputError as InputError
    from .errors import MedalignError as MedalignError
    from .errors import PartialResult as PartialResult
    from .errors import SettingsError as SettingsError
    from .errors import StoreError as StoreError
    from .pipeline.data.manifest import Manifest as Manifest
    from .progress import Progress as Progress
    from .student.inspection.image_attention import ImageAttention as ImageAttention
    from .teacher_cache.store.reading.reader import TeacherStore as TeacherStore
    from .teacher_cache.store.reading.reader import TeacherTarget as TeacherTarget
    from .teacher_cache.store.reading.reader import TeacherTargets as TeacherTargets
    from .teacher_cache.store.reading.reader import open_store as open_store
    from .teacher_cache.store.store_errors import MissingTeacherRow as MissingTeacherRow

__version__ = "0.1.0"

__all__ = [
    "ImageAttention",
    "InputError",
    "Manifest",
    "MedalignError",
    "MissingTeacherRow",
    "PartialResult",
    "Progress",
    "SettingsError",
    "StoreError",
    "Student",
    "Teacher",
    "TeacherStore",
    "TeacherTarget",
    "TeacherTargets",
    "__version__",
    "align",
    "compare",
    "evaluate",
    "extract",
    "inspect",
    "load_student",
    "load_teacher",
    "open_store",
    "study",
    "train",
]

_MODULES = {
    "ImageAttention": "medalign.student.inspection.image_attention",
    "InputError": "medalign.errors",
    "Manifest": "medalign.pipeline.data.manifest",
    "MedalignError": "medalign.errors",
    "MissingTeacherRow": "medalign.teacher_cache.store.store_errors",
    "PartialResult": "medalign.errors",
    "Progress": "medalign.progress",
    "SettingsError": "medalign.errors",
    "StoreError": "medalign.errors",
    "Student": "medalign.api.students",
    "Teacher": "medalign.api.teachers",
    "TeacherStore": "medalign.teacher_cache.store.reading.reader",
    "TeacherTarget": "medalign.teacher_cache.store.reading.reader",
    "TeacherTargets": "medalign.teacher_cache.store.reading.reader",
    "align": "medalign.api.alignment",
    "compare": "medalign.api.evaluation",
    "evaluate": "medalign.api.evaluation",
    "extract": "medalign.api.extraction",
    "inspect": "medalign.api.inspection",
    "load_student": "medalign.api.students",
    "load_teacher": "medalign.api.teachers",
    "open_store": "medalign.teacher_cache.store.reading.reader",
    "study": "medalign.api.studies",
    "train": "medalign.api.training",
}
"""Where each exported name is defined; its module is imported when the name is first used (PEP 562)."""


if not TYPE_CHECKING:  # type checkers have the imports above, and would take any name for exported

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The list of teachers, which needs neither torch nor any weights."""

from ...teacher_cache.teachers import TEACHERS
from ..row_output import Rows
from ..terminal import show_rows


def teacher_rows() -> Rows:
    """The registry of teachers."""
    columns = ("name", "title", "grid", "width", "E_v", "weights")
    rows = [
        (spec.name, spec.title, str(spec.grid), spec.width, spec.features, spec.weights_hint)
        for spec in TEACHERS.values()
    ]
    return Rows(columns, rows)


def show_teachers(*, as_json: bool) -> None:
    """Print the registry of teachers."""
    teachers = teacher_rows()
    show_rows("teachers", teachers.columns, teachers.rows, as_json=as_json)

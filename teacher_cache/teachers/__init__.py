"""Expert CLIP image towers. The registry is plain data; importing it loads neither torch nor open_clip.

`TEACHERS` and `teacher_spec` describe the teachers, `teacher_loading.load_teacher` loads one with its weights, and
`towers.build_tower` builds a tower with random weights.
"""

from .registry import TEACHERS, TeacherSpec, teacher_spec

__all__ = ["TEACHERS", "TeacherSpec", "teacher_spec"]

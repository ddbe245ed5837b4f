"""Expert CLIP image towers. The registry is plain data; importing it loads neither torch nor open_clip.

`TEACHERS` and `teacher_spec` describe, `loading.load_teacher` reads weights, `towers.build_tower` gives a
fresh tower to train.
"""

from .registry import TEACHERS, TeacherSpec, teacher_spec

__all__ = ["TEACHERS", "TeacherSpec", "teacher_spec"]

"""medalign: alignment distillation from medical CLIP teachers into medical vision-language students.

Stage one (`medalign.teacher_cache`) runs a teacher once over every image and writes its patch features E_v and
attention E_a to a store. Stage two (`medalign.student`) trains a LoRA student from that store. `medalign.pipeline`
wires the two to data sets, settings and reports. Importing this package loads neither torch nor zarr.
"""

__version__ = "0.1.0"

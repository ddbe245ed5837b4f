"""Precisions that a student can be loaded in. Importing this loads no torch, so settings can be checked at once."""

from typing import Literal

Dtype = Literal["float32", "bfloat16", "float16"]
DtypeChoice = Literal["auto", "float32", "bfloat16", "float16"]
"""auto: docs/evaluation.md says what it is for inference, docs/training.md for training."""

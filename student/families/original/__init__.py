"""Checkpoints of the original LLaVA format, as published."""

from .original_checkpoint import OriginalCheckpoint, is_original, load_original, read_original

__all__ = ["OriginalCheckpoint", "is_original", "load_original", "read_original"]

"""Published checkpoints in the original LLaVA format."""

from .original_checkpoint import OriginalCheckpoint, is_original, load_original, read_original

__all__ = ["OriginalCheckpoint", "is_original", "load_original", "read_original"]

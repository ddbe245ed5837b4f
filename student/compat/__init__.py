"""Undocumented API of other libraries: one module per library, and used nowhere else.

Each module states the versions it was tested with, and its import fails with the missing name if a library no longer
has what it needs. Documented names (`Trainer`, `LlavaForConditionalGeneration`, `PeftModel`) are imported directly.
"""

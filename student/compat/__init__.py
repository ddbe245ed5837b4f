"""What medalign uses of other libraries beyond their documented API: one module per library, and nowhere else.

Each module states the versions it was tried with and fails at import, by name, where a library no longer has what it
needs. Documented names (`Trainer`, `LlavaForConditionalGeneration`, `PeftModel`) are imported where they are used.
"""

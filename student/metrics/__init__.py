"""Metrics of answers and of attention, as pure functions without models or files."""

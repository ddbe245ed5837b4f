"""Scores of answers and of attention: pure functions, no models and no files."""

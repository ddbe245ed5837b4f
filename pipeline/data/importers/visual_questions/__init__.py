"""Data sets of visual questions."""

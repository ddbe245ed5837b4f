"""Data sets for visual question answering."""

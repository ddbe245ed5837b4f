"""The files in the folder of a run: its description, its answers so far, and how they stopped."""

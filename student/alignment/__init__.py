"""The student with its alignment parts: rotation, attention rows, losses."""

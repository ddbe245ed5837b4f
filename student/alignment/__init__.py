"""The student with its alignment parts: rotation, attention rows and losses."""

"""Passing stores on: as one file (`pack`), to a bucket or server and from it, in part (`subset`), together (`merge`)."""

"""Passing stores on: as one file (`pack`), through buckets and servers (`push`, `pull`), in part, and merged."""

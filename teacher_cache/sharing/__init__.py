"""Sharing stores: as one file (`pack`), through buckets and servers (`push`, `pull`), subsets and merges."""

"""The small files of a store, each bounded and validated before anything believes it."""

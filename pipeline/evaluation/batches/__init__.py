"""Distribute batches of questions over processes, tasks and machines, with the same answers as in one process."""

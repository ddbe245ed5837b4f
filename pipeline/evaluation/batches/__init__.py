"""Questions in batches: shared between processes, tasks and machines so that every answer is what one process gives."""

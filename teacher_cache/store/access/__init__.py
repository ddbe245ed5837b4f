"""Where a store's files are: on a disk or behind a URL."""

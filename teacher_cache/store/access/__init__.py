"""Access to a store's files, on a disk or behind a URL."""

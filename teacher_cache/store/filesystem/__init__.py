"""A store's files and folders on a disk: locks, permissions, links, disk space."""

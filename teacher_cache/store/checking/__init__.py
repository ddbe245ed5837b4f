"""Verifying stores, restoring their files, and the changes (signing, converting) that require a verified store."""

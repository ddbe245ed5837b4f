"""Adapters: their folders, the records in them, and what of a student is trained."""

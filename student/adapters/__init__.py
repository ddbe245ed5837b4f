"""Adapters: their folders, their records, and which parts of a student are trained."""

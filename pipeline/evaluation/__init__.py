"""Answers of a student, and their scores."""

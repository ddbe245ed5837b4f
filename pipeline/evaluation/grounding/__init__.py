"""Grounding: how much of a student's attention is on the annotated region that a question is about."""

"""Grounding: does a student look at the annotated region that a question is about?"""

"""Prompt templates, control tokens and end tokens."""

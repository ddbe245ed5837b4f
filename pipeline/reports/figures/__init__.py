"""Figures: what they show as a table, how each kind is drawn, and their files."""

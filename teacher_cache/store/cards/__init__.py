"""Descriptions of a store for people (README.md) and for data set tools (croissant.json)."""

"""Folders of images, and images inside other files."""

"""Manifests, their images and regions, and the checks of both."""

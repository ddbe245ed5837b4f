"""Manifests, the images and regions that they name, and the checks of both."""

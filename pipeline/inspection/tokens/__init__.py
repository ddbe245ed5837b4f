"""Clusters of image tokens: projections to a plane, and measures of separation."""

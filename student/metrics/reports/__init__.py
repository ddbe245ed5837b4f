"""Metrics of generated reports against reference reports (docs/metrics.md)."""

"""The commands: manifests and data sets, settings, both stages, evaluation, reports."""

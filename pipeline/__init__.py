"""What a run is: manifests and data sets, settings, the two stages wired, evaluation, reports."""

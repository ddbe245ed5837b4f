"""Writing model folders: init, convert and export, with their records and model cards."""

"""The demo: its assets, how they were made, and the run that shows both stages."""

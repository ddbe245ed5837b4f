"""The demo: its assets, the code that makes them, and a run of both stages."""

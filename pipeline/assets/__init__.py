"""Models and data files that metrics need: their folders on this machine, and whether they have changed."""

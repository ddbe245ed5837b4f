"""Models and data files behind metrics: where they lie on this machine, and whether they are still what was added."""

"""Stage two: settings, plan, run, resume."""

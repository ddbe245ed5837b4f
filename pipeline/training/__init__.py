"""Stage two wired: settings, plan, run, resume."""

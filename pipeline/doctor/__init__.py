"""`medalign doctor`: report what this machine has, and what is missing."""

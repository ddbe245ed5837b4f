"""Stage one: planning a store, extracting and extending it, and recomputing damaged rows."""

"""Reading a finished store by image hash."""

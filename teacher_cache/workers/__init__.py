"""Processes and threads that decode, compute and write: here, beside this process, or by Ray."""

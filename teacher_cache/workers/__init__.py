"""Processes and threads that decode, compute and write: in this process, in local worker processes, or with Ray."""

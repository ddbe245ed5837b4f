"""The commands of each group; `cli.py` assembles them. Work is imported inside each command, so `--help` is instant."""

"""The base classes of commands and groups: checked paths, suggestions, help texts, and what Ctrl-C leaves."""

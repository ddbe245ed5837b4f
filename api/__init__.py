"""The Python API: one function for each command that people script, with the command's options as keyword arguments.

`medalign/__init__.py` exports them lazily (docs/python.md). They do what the commands do, by the same functions of
`medalign.pipeline`, and return typed records instead of printing.
"""

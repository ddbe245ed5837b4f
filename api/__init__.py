"""The Python API: functions for the main commands, with the command's options as keyword arguments.

`medalign/__init__.py` exports them lazily (docs/python.md). They call the same functions of `medalign.pipeline` as the
commands, and return typed records instead of printing.
"""

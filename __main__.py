"""`python -m medalign`."""

from .cli import app

app()

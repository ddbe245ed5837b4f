"""The command line, built once, because building takes long."""

from medalign.cli import app
from typer.main import get_command

COMMANDS = get_command(app)

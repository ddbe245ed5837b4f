"""Work that other packages repeat in every call and that no test looks at: a tenth of the suite's time."""

import functools

import typer.main
from transformers import PreTrainedConfig


def install() -> None:
    """Build each command line once, and do not write out whole configurations for messages that nobody sees.

    typer builds all commands again for every call. transformers formats every configuration that it reads, for a log
    that is off.
    """
    setattr(typer.main, "get_command", functools.cache(typer.main.get_command))  # noqa: B010
    setattr(PreTrainedConfig, "__repr__", object.__repr__)  # noqa: B010

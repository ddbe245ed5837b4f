"""The one tree of errors that users see.

A leaf that every room may import. The class of an error decides the command's exit code; its message says what is
wrong, where, both values where two disagree, and the command that helps.
"""


class MedalignError(Exception):
    """Something the user can act on; the command line prints its message without a traceback."""

    exit_code = 1


class SettingsError(MedalignError):
    """A configuration file or option is wrong. All problems found are in one message."""

    exit_code = 2


class InputError(MedalignError):
    """An input file is missing, unreadable, foreign or inconsistent."""

    exit_code = 3


class StoreError(MedalignError):
    """A teacher store is unfinished, damaged, or does not fit what is asked of it."""

    exit_code = 4


class PartialResult(MedalignError):
    """The command finished, but some inputs failed; they are listed in what it wrote.

    `report` is the record that the function would have returned.
    """

    exit_code = 5

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report

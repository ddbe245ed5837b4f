"""The errors that users see.

Every package may import this module. The class of an error determines the exit code of the command. Its message says
what is wrong and where, gives both values if two disagree, and names the command that helps.
"""


class MedalignError(Exception):
    """An error that the user can act on; the command line prints its message without a traceback."""

    exit_code = 1


class SettingsError(MedalignError):
    """A configuration file or an option is invalid. One message lists all problems."""

    exit_code = 2


class InputError(MedalignError):
    """An input file is missing, unreadable, inconsistent or of another kind."""

    exit_code = 3


class StoreError(MedalignError):
    """A teacher store is unfinished, damaged, or does not fit the request."""

    exit_code = 4


class PartialResult(MedalignError):
    """The command finished, but some inputs failed; its output lists them.

    `report` is the record that the function would have returned.
    """

    exit_code = 5

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report

"""What can be wrong with a store, as classes that callers can tell apart."""

from ...errors import InputError, StoreError


class UnfinishedStore(StoreError):
    """Some shards are not committed, or the closing step did not run."""


class DamagedStore(StoreError):
    """Bytes that were committed are gone or have changed."""


class AlteredStore(StoreError):
    """Every digest may fit, but the store is not what its root digest, or its signature, vouches for."""


GET_IT_AGAIN = "get the store again from where it was made, and compare the root digest that its makers publish"
"""What helps where only the makers of a store know what it should be."""


class Obstacle(StoreError):
    """Something stands in the way that a person must remove; nothing says what of the store is damaged."""


class NoPermission(Obstacle):
    """This user may not read or write something."""


class NotAFile(Obstacle):
    """A folder, link, pipe, socket or device lies where a store has a file."""


class StoreInUse(StoreError):
    """Another run writes to the store."""

    exit_code = InputError.exit_code


class TargetInUse(StoreError):
    """Where a store was to be written there is something already; no store is at fault, so it is a bad input."""

    exit_code = InputError.exit_code


class MissingTeacherRow(StoreError, KeyError):
    """A requested image has no row: it was never extracted, or it failed. A store is a mapping: also a KeyError."""

    def __str__(self) -> str:  # KeyError shows the message as a quoted string
        return StoreError.__str__(self)

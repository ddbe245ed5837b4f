"""What can be wrong with a store, as classes that callers can tell apart."""

from ...errors import StoreError


class UnfinishedStore(StoreError):
    """Some shards are not committed, or the closing step did not run."""


class DamagedStore(StoreError):
    """Bytes that were committed are gone or have changed."""


class AlteredStore(StoreError):
    """Every digest may fit, but the store is not what its root digest, or its signature, vouches for."""


GET_IT_AGAIN = "get the store again from where it was made, and compare the root digest that its makers publish"
"""What helps where only the makers of a store know what it should be."""


class NoPermission(StoreError):
    """This user may not read or write something; nothing says that it is damaged."""


class StoreInUse(StoreError):
    """Another run writes to the store."""


class MissingTeacherRow(StoreError, KeyError):
    """A requested image has no row: it was never extracted, or it failed. A store is a mapping: also a KeyError."""

    __str__ = StoreError.__str__  # KeyError's shows the message as a quoted string

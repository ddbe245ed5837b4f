"""Exception classes for what can be wrong with a store."""

from ...errors import InputError, StoreError


class UnfinishedStore(StoreError):
    """Some shards are not committed, or the finishing step did not run."""


class DamagedStore(StoreError):
    """Committed bytes are missing or have changed."""


class AlteredStore(StoreError):
    """The store's content does not match its root digest or its signature, even if every file matches its digest."""


GET_IT_AGAIN = "get the store again from its authors, and compare its root digest with the one that they publish"
"""The advice if only the authors of a store know its correct content."""

FROM_SENDER = "or get it again from whoever sent it"
"""The advice beside a repair that needs the teacher's weights, which a receiver of the store does not have."""

OTHER_IMAGES = "re-encoded, resized or anonymized files are different images"
"""Why a store may have no row for an image that somebody takes for one of its images."""


class Obstacle(StoreError):
    """Something that the user has to fix keeps the store from being read; it says nothing about damage."""


class NoPermission(Obstacle):
    """This user lacks the permission to read or write something."""


class NotAFile(Obstacle):
    """A folder, link, pipe, socket or device is in the place of a file of the store."""


class StoreInUse(StoreError):
    """Another run writes to the store."""

    exit_code = InputError.exit_code


class TargetInUse(StoreError):
    """The output path exists already. No store is at fault, so the exit code is that of a bad input."""

    exit_code = InputError.exit_code


class MissingTeacherRow(StoreError, KeyError):
    """A requested image has no row: never extracted, or failed. Also a KeyError, since a store is a mapping."""

    def __str__(self) -> str:  # KeyError shows the message as a quoted string
        return StoreError.__str__(self)

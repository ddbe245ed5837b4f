"""The store of teacher targets: standard Zarr v3 files with an index, a ledger and digests of all content.

Reading (`open_store`) loads neither zarr nor open_clip nor a teacher. `writing.writer.StoreWriter` writes stores and
`checking.verification.verify` checks them. docs/store-format.md specifies the format.
"""

from .format.header import StoreHeader
from .format.keyed_hashes import HashKey
from .reading.reader import TeacherStore, TeacherTarget, TeacherTargets, open_store
from .store_errors import DamagedStore, MissingTeacherRow, UnfinishedStore

__all__ = [
    "DamagedStore",
    "HashKey",
    "MissingTeacherRow",
    "StoreHeader",
    "TeacherStore",
    "TeacherTarget",
    "TeacherTargets",
    "UnfinishedStore",
    "open_store",
]

"""The store of teacher targets: standard Zarr v3 files with an index, a ledger and digests of everything.

Reading (`open_store`) loads neither zarr nor open_clip nor a teacher; writing is `writer.StoreWriter`, checking is
`verify.verify`. The format is written down in docs/store-format.md.
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

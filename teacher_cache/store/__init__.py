"""The store of teacher targets: standard Zarr v3 files with an index, a ledger and digests of everything.

Reading (`open_store`) loads neither zarr nor open_clip nor a teacher; writing is `writer.StoreWriter`, checking is
`verify.verify`. The format is written down in docs/store-format.md.
"""

from .format import StoreHeader
from .keyed import HashKey
from .problems import DamagedStore, MissingTeacherRow, UnfinishedStore
from .reader import TeacherStore, TeacherTarget, TeacherTargets, open_store

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

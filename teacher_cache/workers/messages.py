"""Messages between the process that assigns shards and the workers that compute them; all can be pickled."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from ...choices import Profile
from ...errors import MedalignError
from ..store.format.keyed_hashes import HashKey
from .prefetch import FailedImage, ImageSource

DecodeIn = Literal["threads", "processes"]


@dataclass(frozen=True, slots=True)
class ShardJob:
    """A shard to compute, and the image of each of its rows."""

    shard: int
    profile: Profile
    images: tuple[ImageSource, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkSettings:
    """Settings of a worker, in addition to teacher, store and shards."""

    decode_workers: int
    """Threads or processes per worker that read and decode images."""
    hash_key: HashKey | None
    decode_in: DecodeIn = "threads"


@dataclass(frozen=True, slots=True)
class Advanced:
    """The number of images that went through the teacher; negative if their shard must be recomputed."""

    images: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A shard is on disk and in the ledger."""

    shard: int
    failures: tuple[FailedImage, ...]
    narrow: int = 0
    """Number of its images that use less than an eighth of their pixels' range."""


Event = Advanced | Committed
Tell = Callable[[Event], None]
"""Callback for events; it is called from two threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clocks:
    """How a worker's main thread spent its time, in seconds."""

    total: float
    read: float
    """Waiting for decoded images."""
    forward: float
    write: float
    """Waiting for the thread that encodes and writes."""


def portable(error: Exception) -> Exception:
    """An error that another process can raise: errors that callers handle are kept, others are converted to text."""
    if isinstance(error, MedalignError | OSError | torch.OutOfMemoryError):
        return error
    return RuntimeError("a worker failed:\n" + "".join(traceback.format_exception(error)))

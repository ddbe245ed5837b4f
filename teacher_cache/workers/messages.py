"""What is said between whoever hands out shards and whoever computes them; all of it can be pickled."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from ...errors import MedalignError
from ..store.format.keyed_hashes import HashKey
from ..store.format.profiles import Profile
from .prefetch import FailedImage, ImageSource

DecodeIn = Literal["threads", "processes"]


@dataclass(frozen=True, slots=True)
class ShardJob:
    """A shard that is to be computed, and the image of each of its rows."""

    shard: int
    profile: Profile
    images: tuple[ImageSource, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkSettings:
    """What a worker needs beside teacher, store and shards."""

    decode_workers: int
    """How many threads or processes of each worker read and decode images."""
    hash_key: HashKey | None
    decode_in: DecodeIn = "threads"


@dataclass(frozen=True, slots=True)
class Advanced:
    """So many images went through the teacher; negative where their shard has to be computed once more."""

    images: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A shard is on disk and in the ledger."""

    shard: int
    failures: tuple[FailedImage, ...]
    narrow: int = 0
    """Images of it that use under an eighth of the range of their pixels."""


Event = Advanced | Committed
Tell = Callable[[Event], None]
"""Called from two threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clocks:
    """Where the time of a worker's main thread went, in seconds."""

    total: float
    read: float
    """Waiting for decoded images."""
    forward: float
    write: float
    """Waiting for the thread that encodes and writes."""


def portable(error: Exception) -> Exception:
    """An error as another process can raise it again: those that callers act on as they are, others as text."""
    if isinstance(error, MedalignError | OSError | torch.OutOfMemoryError):
        return error
    return RuntimeError("a worker failed:\n" + "".join(traceback.format_exception(error)))

"""Keyed image hashes: a plain SHA-256 lets anyone who holds an image confirm that it is in a store; these do not."""

import codecs
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ....atomic import sync_folder
from ....errors import InputError, StoreError
from ..filesystem.private_files import check_private
from .header import PLAIN_HASHING

LEAST_BYTES = 32
"""Of a key: as many as SHA-256 has."""


@dataclass(frozen=True, slots=True)
class HashKey:
    """A lab's secret. A keyed hash is HMAC-SHA256 over the plain hash's hex digits, so no image is read again."""

    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """16 hex digits that name the key and tell nothing about it."""
        return hmac.new(self.secret, b"medalign key id", hashlib.sha256).hexdigest()[:16]

    @property
    def hashing(self) -> str:
        """What a store's header says about hashes made with this key."""
        return f"hmac-sha256:{self.key_id}"

    def keyed(self, digest: str) -> str:
        """The store's name of an image whose plain SHA-256 is `digest`, in hex."""
        return hmac.new(self.secret, digest.encode(), hashlib.sha256).hexdigest()


def hashing_of(key: HashKey | None) -> str:
    """What a store's header says about hashes made with this key, or without one."""
    return key.hashing if key else PLAIN_HASHING


def naming(key: HashKey | None) -> Callable[[str], str]:
    """From an image's plain hash to the name that a store made with this key has for it."""
    return key.keyed if key else str


def require_key(key: HashKey | None, hashing: str, location: str) -> None:
    """Hold that a store whose header says `hashing` was made with this key, or without one.

    Raises:
        StoreError: it was not.
    """
    if hashing_of(key) != hashing:
        raise StoreError(
            f"the image hashes of {location} are {hashing}, not {hashing_of(key)}: "
            + ("leave the key out" if hashing == PLAIN_HASHING else "give the key that it was made with")
        )


def make_key(path: Path) -> HashKey:
    """Draw a key of 256 bits and write it, as 64 hex digits, to a new file that its owner alone can read.

    Raises:
        InputError: something is there already, or it cannot be written.
    """
    digits = secrets.token_hex(32).encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(digits + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except FileExistsError as error:
        raise InputError(
            f"{path} exists: a key is never overwritten, because the stores made with it would be closed for good; "
            "choose another name"
        ) from error
    except OSError as error:
        raise InputError(f"cannot write a key to {path}: {error.strerror}") from error
    return HashKey(digits)


def given_key(path: Path | None) -> HashKey | None:
    """The key in a file, where a file was given; see `read_key`."""
    return None if path is None else read_key(path)


def read_key(path: Path) -> HashKey:
    """The key in a file: all its bytes without the white space around them, so that an editor's newline is harmless.

    Raises:
        InputError: it cannot be read, others can read it too, it begins with a byte order mark, or is shorter than 32
            bytes.
    """
    try:
        check_private(path, "a key")
        secret = path.read_bytes().strip()
    except OSError as error:
        raise InputError(
            f"cannot read the key {path}: {error.strerror}; `medalign data make-key {path}` makes a new one"
        ) from error
    if secret.startswith(codecs.BOM_UTF8):
        raise InputError(f"{path} begins with a byte order mark: an editor has saved it again, which makes another key")
    if len(secret) < LEAST_BYTES:
        raise InputError(
            f"{path} holds {len(secret)} bytes, too few for a key ({LEAST_BYTES}); `medalign data make-key` makes one"
        )
    return HashKey(secret)

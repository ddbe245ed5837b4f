"""Keyed image hashes. With a plain SHA-256, anyone who has an image can check whether a store contains it."""

import codecs
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ....atomic import write_new
from ....errors import InputError, StoreError
from ....plain_text import as_typed
from ..filesystem.private_files import check_private
from .header import PLAIN_HASHING

LEAST_BYTES = 32
"""Minimum length of a key: that of a SHA-256."""


@dataclass(frozen=True, slots=True)
class HashKey:
    """A lab's secret key. A keyed hash is the HMAC-SHA256 of the plain hash's hex digits, so no image is read again."""

    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """16 hex digits that identify the key without revealing it."""
        return hmac.new(self.secret, b"medalign key id", hashlib.sha256).hexdigest()[:16]

    @property
    def hashing(self) -> str:
        """The `hashing` field of a store header for this key."""
        return f"hmac-sha256:{self.key_id}"

    def keyed(self, digest: str) -> str:
        """The keyed hash for the plain SHA-256 `digest`, both in hex."""
        return hmac.new(self.secret, digest.encode(), hashlib.sha256).hexdigest()


def hashing_of(key: HashKey | None) -> str:
    """The `hashing` field of a store header for this key, or for no key."""
    return key.hashing if key else PLAIN_HASHING


def naming(key: HashKey | None) -> Callable[[str], str]:
    """A function from plain image hashes to the hashes of a store with this key, or without a key."""
    return key.keyed if key else str


def require_key(key: HashKey | None, hashing: str, location: str) -> None:
    """Check that a store with this `hashing` field was created with this key, or without a key if it is `None`.

    Raises:
        StoreError: it was not.
    """
    if hashing_of(key) != hashing:
        raise StoreError(
            f"the image hashes of {location} are {hashing}, not {hashing_of(key)}: "
            + ("do not pass a key" if hashing == PLAIN_HASHING else "pass the key that it was created with")
        )


def make_key(path: Path) -> HashKey:
    """Generate a random key of 256 bits and write it, as 64 hex digits, to a new file that only its owner can read.

    Raises:
        InputError: the path exists, or it cannot be written.
    """
    digits = secrets.token_hex(32).encode()
    try:
        write_new(path, digits + b"\n", 0o600)
    except FileExistsError as error:
        raise InputError(
            f"{path} exists: a key is never overwritten, because the stores created with it could not be searched any "
            "more; choose another name"
        ) from error
    except OSError as error:
        raise InputError(f"cannot write the key to {path}: {error.strerror}") from error
    return HashKey(digits)


def given_key(path: Path | None) -> HashKey | None:
    """Read the key in a file, or return `None` for no file; see `read_key`."""
    return None if path is None else read_key(path)


def read_key(path: Path) -> HashKey:
    """Read the key in a file: all its bytes, except leading and trailing whitespace such as an editor's newline.

    Raises:
        InputError: it cannot be read, other users can read it, it starts with a byte order mark, or it has fewer than
            32 bytes.
    """
    try:
        check_private(path, "a key")
        secret = path.read_bytes().strip()
    except OSError as error:
        raise InputError(
            f"cannot read the key {path}: {error.strerror}. Pass the key that the store was created with; no other key "
            f"finds its images. For a new store, `medalign data make-key {as_typed(path)}` creates one"
        ) from error
    if secret.startswith(codecs.BOM_UTF8):
        raise InputError(
            f"{path} starts with a byte order mark, so an editor has re-saved it, which makes it a different key"
        )
    if len(secret) < LEAST_BYTES:
        raise InputError(
            f"{path} has {len(secret)} bytes, but a key needs {LEAST_BYTES}, so no store was made with it. For "
            "a new store, `medalign data make-key` creates a key"
        )
    return HashKey(secret)

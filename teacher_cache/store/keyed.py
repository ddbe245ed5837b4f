"""Keyed image hashes: a plain SHA-256 lets anyone who holds an image confirm that it is in a store; these do not."""

import hashlib
import hmac
from dataclasses import dataclass, field


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

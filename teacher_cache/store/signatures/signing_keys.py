"""Ed25519 keys for signing stores, in the common file formats: OpenSSH and PEM (PKCS #8, SubjectPublicKeyInfo)."""

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from ....errors import InputError
from ....plain_text import as_typed
from ..store_errors import DamagedStore

_LARGEST_FILE = 64 << 10
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_CREATE_ONE = "`ssh-keygen -t ed25519 -f FILE` creates a key pair: sign with FILE and publish FILE.pub"
_PASS_THEIRS = "pass the .pub file of the authors or its text"
_PRIVATE = b"PRIVATE KEY-----"

Passphrase = Callable[[], str | None]
"""Asks the user for the passphrase of a key; returns `None` if there is no terminal."""


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key."""

    raw: bytes
    """32 bytes."""

    @property
    def text(self) -> str:
        """The key in OpenSSH's format, without a comment."""
        return self._key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    @property
    def fingerprint(self) -> str:
        """The fingerprint that `ssh-keygen -l` shows."""
        digest = hashlib.sha256(base64.b64decode(self.text.split()[1])).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    def verifies(self, signature: str, data: bytes) -> bool:
        """Whether this key made the base64 signature of `data`."""
        try:
            self._key.verify(base64.b64decode(signature, validate=True), data)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    @property
    def _key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)


class SigningKey:
    """A private key; its repr does not reveal it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def public(self) -> VerifyKey:
        return VerifyKey(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> str:
        """The signature of `data`, in base64."""
        return base64.b64encode(self._key.sign(data)).decode()


def read_signing_key(path: Path, ask: Passphrase) -> SigningKey:
    """Read the private key in a file that only its owner can read; `ask` is called if it has a passphrase.

    Raises:
        InputError: it cannot be read, other users can read it, or it is not an Ed25519 private key.
    """
    data = _read(path, private=True)
    if _PRIVATE not in data:
        kind = "is a public key, which cannot sign" if _is_public(data) else "does not contain a private key"
        raise InputError(f"{path} {kind}: {_CREATE_ONE}")
    load: Callable[..., Any] = load_ssh_private_key if b"OPENSSH" in data else load_pem_private_key
    try:
        try:
            key = load(data, None)
        except (TypeError, ValueError) as error:
            if not isinstance(error, TypeError) and "assword" not in str(error):
                raise
            key = load(data, _passphrase(path, ask))
    except UnsupportedAlgorithm as error:
        raise InputError(f"{path} cannot be read here: {error}; `pip install bcrypt` may help") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: it is damaged, or the passphrase is wrong") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is not an Ed25519 key, the only kind that signs stores: {_CREATE_ONE}")
    return SigningKey(key)


def read_verify_key(source: str) -> VerifyKey:
    """Read the public key in a file, or parse a literal `ssh-ed25519 AAAA...`.

    Raises:
        InputError: it cannot be read, or is not an Ed25519 public key.
    """
    data = os.fsencode(source) if source.startswith("ssh-") else _read(Path(source), private=False)
    if _PRIVATE in data:
        raise InputError(
            f"{source} is a private key, which must be kept secret: pass the public key of the pair ({source}.pub)"
        )
    try:
        return parse_public_key(data, source)
    except DamagedStore as error:
        raise InputError(f"{error}: {_PASS_THEIRS}") from error


def parse_public_key(data: bytes, where: str) -> VerifyKey:
    """Parse a public key in OpenSSH's format or PEM.

    Raises:
        DamagedStore: it is not an Ed25519 public key.
    """
    try:
        key = load_pem_public_key(data) if data.lstrip().startswith(b"-----") else load_ssh_public_key(data.strip())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise DamagedStore(f"{where} does not contain a public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise DamagedStore(f"{where} does not contain an Ed25519 public key")
    return VerifyKey(key.public_bytes_raw())


def _is_public(data: bytes) -> bool:
    try:
        parse_public_key(data, "")
    except DamagedStore:
        return False
    return True


def _read(path: Path, *, private: bool) -> bytes:
    """Read a small file and check the permissions of that same file, even if it is renamed meanwhile."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(
            f"cannot read the key {path}: {error.strerror}; {_CREATE_ONE if private else _PASS_THEIRS}"
        ) from error
    if len(data) > _LARGEST_FILE:
        raise InputError(f"{path} is too long for a key")
    if private and mode & _OTHERS and not _is_public(data):
        raise InputError(
            f"other users can access {path} (mode {stat.S_IMODE(mode):04o}) and could sign in its owner's name: run "
            f"`chmod 600 {as_typed(path)}`; if someone else may have read it, create a new key"
        )
    return data


def _passphrase(path: Path, ask: Passphrase) -> bytes:
    answer = ask()
    if answer is None:
        raise InputError(f"{path} has a passphrase, but there is no terminal to ask for it")
    return os.fsencode(answer)

"""signature.json: who vouches for a store. Signed is a statement of its root digest, format version and header.

Reading a store never needs it. `signing_keys.py` has the cryptography.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ....atomic import sync_folder
from ..access.store_files import LocalFiles
from ..file_names import SIGNATURE_FILE
from ..format.header import StoreHeader, canonical_json, same_json
from ..records.schemas import parse_json, parse_model
from ..store_errors import DamagedStore

if TYPE_CHECKING:
    from .signing_keys import SigningKey, VerifyKey

SUBJECT = "medalign teacher store"
LARGEST = 16 << 10
"""Bytes of a signature file; one has about 700."""


class Signature(BaseModel):
    """The file. The statement is kept as the very text that was signed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str = Field(max_length=200)
    """As OpenSSH writes it: `ssh-ed25519 AAAA...`, without a comment."""
    signature: str = Field(max_length=200)
    """Base64 of the 64 bytes."""
    statement: str = Field(max_length=4096)
    """JSON with sorted keys and no spaces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SignatureCheck:
    """What became of checking a signature."""

    key: str | None
    """The key that it names, as `ssh-keygen -l` shows it; `None` where there is no readable signature."""
    trusted: bool
    """Whether the key is the one that the caller trusts."""
    problems: tuple[str, ...] = ()
    """What is wrong with the signature, whoever made it."""
    contradicts: bool = False
    """Whether the key did sign, but another state of the store."""
    untrusted: str = ""
    """What the caller's key has to do with it; empty where it made the signature, or no key was given."""


def statement_of(header: StoreHeader, root_sha256: str) -> dict[str, Any]:
    """What a signature says about a store. The header's digest adds what is not under the root digest."""
    return {
        "subject": SUBJECT,
        "format_version": header.format_version,
        "fingerprint": header.fingerprint,
        "header_sha256": hashlib.sha256(canonical_json(header.model_dump(mode="json"))).hexdigest(),
        "root_sha256": root_sha256,
    }


def make_signature(header: StoreHeader, root_sha256: str, key: "SigningKey") -> bytes:
    """The file that vouches for a store."""
    statement = canonical_json(statement_of(header, root_sha256)).decode()
    signature = Signature(public_key=key.public.text, signature=key.sign(statement.encode()), statement=statement)
    return signature.model_dump_json(indent=1).encode() + b"\n"


def parse_signature(data: bytes, where: str = SIGNATURE_FILE) -> Signature:
    """Validate the file.

    Raises:
        DamagedStore: it is something else.
    """
    try:
        return parse_model(Signature, data, LARGEST, where)
    except DamagedStore as error:
        raise DamagedStore(f"{where} is no signature: {error}") from error


def named_key(data: bytes) -> str | None:
    """The key that a signature names, whether it made it or not; `None` where it names none."""
    from .signing_keys import parse_public_key

    try:
        return parse_public_key(parse_signature(data).public_key.encode(), SIGNATURE_FILE).fingerprint
    except DamagedStore:
        return None


def check_signature(
    data: bytes | None, header: StoreHeader, root_sha256: str | None, key: "VerifyKey | None"
) -> SignatureCheck:
    """Check the signature file of a store, `None` where it has none, against what the store holds.

    Without a `key`, that the store was changed after it was signed is found, but not who signed it. With
    `root_sha256` None the root digest is not known, and not compared.
    """
    if data is None:
        return SignatureCheck(key=None, trusted=False, untrusted="" if key is None else "the store is not signed")
    from .signing_keys import parse_public_key  # which takes a while to import

    try:
        signature = parse_signature(data)
        signer = parse_public_key(signature.public_key.encode(), SIGNATURE_FILE)
    except DamagedStore as error:
        untrusted = "" if key is None else "the store has no signature that can be read"
        return SignatureCheck(key=None, trusted=False, problems=(str(error),), untrusted=untrusted)
    problems = []
    made = signer.verifies(signature.signature, signature.statement.encode())
    if not made:
        problems.append("was not made by the key that it names, or was changed since")
    differences = _differences(signature.statement, header, root_sha256)
    other = "" if key in (None, signer) else f"the store is signed by {signer.fingerprint}, not by {key.fingerprint}"
    return SignatureCheck(
        key=signer.fingerprint,
        trusted=signer == key and made and not differences,
        problems=(*problems, *differences),
        contradicts=made and bool(differences),
        untrusted=other,
    )


def remove_stale_signature(store: Path, header: StoreHeader, root_sha256: str) -> None:
    """Remove the signature of a local store that is about to be closed, where it vouches for something else."""
    try:
        data = LocalFiles(store).read(SIGNATURE_FILE)
    except FileNotFoundError:
        return
    except OSError:  # larger than any signature
        data = b""
    if check_signature(data, header, root_sha256, None).problems:
        (store / SIGNATURE_FILE).unlink()
        sync_folder(store)


def is_signed(store: Path) -> bool:
    """Whether a local store has a signature, of whatever."""
    return (store / SIGNATURE_FILE).is_file()


OUTDATED = "its signature was removed, because it does not vouch for what the store holds now"


def removed_note(store: Path, why: str = OUTDATED) -> str:
    """What people are told whose change of a store cost it its signature."""
    return f"{store}: {why}; `medalign teacher sign {store} --key FILE` signs it again"


def damaged_signature(store: str | Path) -> str:
    """What helps where a signature is damaged or lost, and nothing says that the data are."""
    return (
        f"The signature alone is damaged or lost: put {SIGNATURE_FILE} back from another copy of {store}, or sign it "
        "again (`medalign teacher sign`); `medalign teacher repair` removes it and leaves the store unsigned."
    )


def _differences(statement: str, header: StoreHeader, root_sha256: str | None) -> list[str]:
    try:
        stated = parse_json(statement.encode(), LARGEST, SIGNATURE_FILE)
    except DamagedStore:
        stated = None
    if not isinstance(stated, dict):
        return ["does not hold a statement about a store"]
    expected = statement_of(header, root_sha256 or stated.get("root_sha256", ""))
    if stated.keys() != expected.keys():
        return ["states something else than a store's root digest, format version and header"]
    return [
        f"vouches for {name} {str(stated[name])[:200]}, and the store has {expected[name]}"
        for name in expected
        if not same_json(stated[name], expected[name])
    ]

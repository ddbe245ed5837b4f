"""signature.json: a signed statement of a store's root digest, format version and header.

It is not needed to read a store. `signing_keys.py` has the cryptography.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ....atomic import sync_folder
from ....plain_text import as_typed
from ..access.store_files import LocalFiles
from ..file_names import SIGNATURE_FILE
from ..format.header import StoreHeader, canonical_json, same_json
from ..records.schemas import parse_json, parse_model
from ..store_errors import DamagedStore

if TYPE_CHECKING:
    from .signing_keys import SigningKey, VerifyKey

SUBJECT = "medalign teacher store"
LARGEST = 16 << 10
"""Maximum size of a signature file in bytes; it usually has about 700."""


class Signature(BaseModel):
    """The content of signature.json. The statement is stored as the exact text that was signed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str = Field(max_length=200)
    """In OpenSSH's format, `ssh-ed25519 AAAA...`, without a comment."""
    signature: str = Field(max_length=200)
    """Base64 of the 64 bytes."""
    statement: str = Field(max_length=4096)
    """JSON with sorted keys and no spaces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SignatureCheck:
    """Result of checking a signature."""

    key: str | None
    """Fingerprint of the key in the signature, as `ssh-keygen -l` shows it; `None` without a readable signature."""
    trusted: bool
    """Whether the store is signed with the key that the caller trusts."""
    problems: tuple[str, ...] = ()
    """What is wrong with the signature, regardless of the key."""
    contradicts: bool = False
    """Whether the key signed a different state of the store."""
    compared: bool = False
    """Whether the root digest that it states was compared with that of header, index and ledger."""
    untrusted: str = ""
    """Why the caller's key does not verify the signature; empty if it does, or if no key was given."""


def statement_of(header: StoreHeader, root_sha256: str) -> dict[str, Any]:
    """The statement to sign. The digest of the header covers the fields that the root digest does not."""
    return {
        "subject": SUBJECT,
        "format_version": header.format_version,
        "fingerprint": header.fingerprint,
        "header_sha256": hashlib.sha256(canonical_json(header.model_dump(mode="json"))).hexdigest(),
        "root_sha256": root_sha256,
    }


def make_signature(header: StoreHeader, root_sha256: str, key: "SigningKey") -> bytes:
    """Sign a store; returns the content of signature.json."""
    statement = canonical_json(statement_of(header, root_sha256)).decode()
    signature = Signature(public_key=key.public.text, signature=key.sign(statement.encode()), statement=statement)
    return signature.model_dump_json(indent=1).encode() + b"\n"


def parse_signature(data: bytes, where: str = SIGNATURE_FILE) -> Signature:
    """Parse and validate signature.json.

    Raises:
        DamagedStore: it is not a signature.
    """
    return parse_model(Signature, data, LARGEST, where)


def named_key(data: bytes) -> str | None:
    """Fingerprint of the key in a signature, which is not verified; `None` if there is none."""
    from .signing_keys import parse_public_key

    try:
        return parse_public_key(parse_signature(data).public_key.encode(), SIGNATURE_FILE).fingerprint
    except DamagedStore:
        return None


def check_signature(
    data: bytes | None, header: StoreHeader, root_sha256: str | None, key: "VerifyKey | None"
) -> SignatureCheck:
    """Check the signature file of a store (`None` if it has none) against the store's content.

    Without a `key`, this detects changes made after signing, but not who signed. With `root_sha256` None the root
    digest is unknown and is not compared.
    """
    if data is None:
        return SignatureCheck(key=None, trusted=False, untrusted="" if key is None else "the store is not signed")
    from .signing_keys import parse_public_key  # slow to import

    try:
        signature = parse_signature(data)
        signer = parse_public_key(signature.public_key.encode(), SIGNATURE_FILE)
    except DamagedStore as error:
        untrusted = "" if key is None else "the store has no readable signature"
        return SignatureCheck(key=None, trusted=False, problems=(str(error),), untrusted=untrusted)
    problems = []
    made = signer.verifies(signature.signature, signature.statement.encode())
    if not made:
        problems.append("was not made with the key that it names, or was changed afterwards")
    differences = _differences(signature.statement, header, root_sha256)
    other = "" if key in (None, signer) else f"the store is signed with {signer.fingerprint}, not {key.fingerprint}"
    return SignatureCheck(
        key=signer.fingerprint,
        trusted=signer == key and made and not differences,
        problems=(*problems, *differences),
        contradicts=made and bool(differences),
        compared=root_sha256 is not None,
        untrusted=other,
    )


def remove_stale_signature(store: Path, header: StoreHeader, root_sha256: str) -> None:
    """Remove the signature of a local store that is about to be finished, if it is for other content."""
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
    """Whether a local store has a signature, valid or not."""
    return (store / SIGNATURE_FILE).is_file()


OUTDATED = "its signature was removed, because it does not match the store's content any more"


def removed_note(store: Path, why: str = OUTDATED) -> str:
    """The note for users who changed a store, so that its signature was removed."""
    return f"{store}: {why}; `medalign store sign {as_typed(store)} --key FILE` signs it again"


def damaged_signature(store: str | Path) -> str:
    """The advice for a damaged or missing signature of a store whose data shows no damage."""
    return (
        f"Only the signature is damaged or missing: restore {SIGNATURE_FILE} from another copy of {store}, or sign it "
        "again (`medalign store sign`); `medalign store repair` removes it and leaves the store unsigned."
    )


def _differences(statement: str, header: StoreHeader, root_sha256: str | None) -> list[str]:
    try:
        stated = parse_json(statement.encode(), LARGEST, SIGNATURE_FILE)
    except DamagedStore:
        stated = None
    if not isinstance(stated, dict):
        return ["does not contain a statement about a store"]
    expected = statement_of(header, root_sha256 or stated.get("root_sha256", ""))
    if stated.keys() != expected.keys():
        return ["contains fields other than a store's root digest, format version and header"]
    return [
        f"is for {name} {str(stated[name])[:200]}, but the store has {expected[name]}"
        for name in expected
        if not same_json(stated[name], expected[name])
    ]

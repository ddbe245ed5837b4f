"""Where a store may be: a path, or a URL that is written right and carries no secret."""

from typing import Final
from urllib.parse import urlsplit

from ....errors import StoreError
from ....plain_text import is_url, without_secrets

_USUAL: Final = ("s3", "gs", "hf", "http", "https")


def check_location(location: str) -> str:
    """A path, or the URL of a store, without a slash at its end.

    Raises:
        StoreError: a URL that is misspelled or chained, or that carries credentials, a query or a fragment. The
            message does not repeat what may be secret.
    """
    if not is_url(location):
        return location.rstrip("/") or location
    shown = without_secrets(location)
    if "::" in location and "://[" not in location:  # the address of an IPv6 host may hold two colons
        raise StoreError(
            f"{shown} is a chain of URLs, which is not supported: give the URL of the store itself, or pull it first"
        )
    scheme, _, rest = location.partition(":")
    if not rest.startswith("//"):
        raise StoreError(
            f"{shown} is not a URL: write {scheme.lower()}://{shown.partition(':')[2].lstrip('/')}, or for a folder of "
            f"that name ./{shown}"
        )
    if scheme != scheme.lower():
        raise StoreError(f"{shown}: write the scheme in lower case, {scheme.lower()}://")
    _check_parts(location, shown)
    return location.rstrip("/")


def _check_parts(location: str, shown: str) -> None:
    try:
        parts = urlsplit(location)
        _ = parts.port
    except ValueError as error:
        raise StoreError(f"{shown} is not a URL: its host or port cannot be read") from error
    if "@" in parts.netloc:
        raise StoreError(
            f"a {parts.scheme}:// URL must not hold a user or password: they would end up in logs and reports. "
            "Give them in the environment or in ~/.netrc"
        )
    if parts.query or parts.fragment:
        raise StoreError(f"{shown} has a query or fragment: give the folder's own URL")
    if parts.scheme in _USUAL and not parts.netloc:
        raise StoreError(f"{shown} names no host, bucket or repository: write {parts.scheme}://NAME/store.zarr")

"""Validation of a store's location: a path, or a well-formed URL without secrets."""

from typing import Final
from urllib.parse import urlsplit

from ....errors import StoreError
from ....plain_text import is_url, without_secrets

_COMMON_SCHEMES: Final = ("s3", "gs", "hf", "http", "https")


def check_location(location: str) -> str:
    """Validate the path or URL of a store and strip the trailing slash.

    Raises:
        StoreError: the URL is misspelled or chained, or contains credentials, a query or a fragment. The message does
            not repeat anything that may be secret.
    """
    if not is_url(location):
        return location.rstrip("/") or location
    shown = without_secrets(location)
    if "::" in location and "://[" not in location:  # an IPv6 address may contain two colons
        raise StoreError(
            f"{shown} is a chained URL, which is not supported: pass the URL of the store itself, or pull it first"
        )
    scheme, _, rest = location.partition(":")
    if not rest.startswith("//"):
        raise StoreError(
            f"{shown} is not a URL: write {scheme.lower()}://{shown.partition(':')[2].lstrip('/')}, or ./{shown} for a "
            "folder with that name"
        )
    if scheme != scheme.lower():
        raise StoreError(f"{shown}: write the scheme in lowercase, {scheme.lower()}://")
    _check_parts(location, shown)
    return location.rstrip("/")


def _check_parts(location: str, shown: str) -> None:
    try:
        parts = urlsplit(location)
        _ = parts.port
    except ValueError as error:
        raise StoreError(f"{shown} is not a URL: its host or port is invalid") from error
    if "@" in parts.netloc:
        raise StoreError(
            f"{parts.scheme}:// URLs must not contain a user name or password, because they would end up in logs and "
            "reports. Set them in the environment or in ~/.netrc"
        )
    if parts.query or parts.fragment:
        raise StoreError(f"{shown} has a query or fragment: pass the plain URL of the folder")
    if parts.scheme in _COMMON_SCHEMES and not parts.netloc:
        raise StoreError(f"{shown} has no host, bucket or repository: write {parts.scheme}://NAME/store.zarr")

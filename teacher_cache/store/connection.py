"""A connection to where stores lie behind a URL: fsspec's filesystem, with patience and errors that say what to check.

Credentials come from the environment as each protocol's own tools take them (AWS_..., GOOGLE_APPLICATION_CREDENTIALS,
HF_TOKEN, ~/.netrc), and never appear in a message.
"""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from ...errors import StoreError

T = TypeVar("T")

HTTP: Final = ("http", "https")
REQUESTS_AT_ONCE: Final = 16
_PAUSES: Final = (0.2, 1.0, 4.0)
"""Seconds between attempts, where the network or the server failed for the moment."""

_NOT_FOUND, _REFUSED = (404, 410), (401, 403, 407)
_WORTH_REPEATING = (408, 425, 429)

_CONNECT_WITHIN, _SILENT_AT_MOST = 15.0, 60.0
"""Seconds; a server that says nothing for longer has failed."""

_kept_for_ever: list[object] = []
"""Filesystems of a parent process: closing them here would wait for threads that a fork does not copy."""


class Connection:
    """Connects when first used, anew in each process, so it survives pickling and forking."""

    def __init__(self, location: str) -> None:
        """No connection is made.

        Raises:
            StoreError: the URL carries credentials, or a query, which does not lead to files below it.
        """
        self.location = check_location(location)
        self._connected: tuple[int, Any, str] | None = None

    def __reduce__(self) -> tuple[type["Connection"], tuple[str]]:
        return Connection, (self.location,)

    @property
    def protocol(self) -> str:
        return urlsplit(self.location).scheme if "://" in self.location else "file"

    @property
    def filesystem(self) -> Any:
        return self._connect()[0]

    def path(self, key: str) -> str:
        """The filesystem's own name of a file of the store; of the store itself where `key` is empty."""
        return f"{self._connect()[1]}/{key}".rstrip("/")

    def patiently(self, what: str, work: Callable[[], T]) -> T:
        """Do `work()`, several times where the network or the server fails for the moment.

        Raises:
            FileNotFoundError: there is no such file.
            StoreError: access is refused, or the last attempt failed too.
        """
        for pause in (*_PAUSES, None):
            try:
                return work()
            except StoreError:
                raise
            except Exception as error:
                problem = self._judge(error, what)
                if problem is not None:
                    raise problem from error
                if pause is None:
                    raise StoreError(
                        f"{self.location} does not answer ({what}, {len(_PAUSES) + 1} attempts): {_told(error)}. Check "
                        "the network, the server and its address (AWS_ENDPOINT_URL and the like), then repeat"
                    ) from error
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _connect(self) -> tuple[Any, str]:
        """fsspec's filesystem and the store's path in it; an inherited one belongs to the parent's threads.

        Raises:
            StoreError: the protocol is unknown, or its package is not installed.
        """
        if self._connected is None or self._connected[0] != os.getpid():
            if self._connected is not None:
                _kept_for_ever.append(self._connected)
            self._connected = (os.getpid(), *_connect(self.location, self.protocol))
        return self._connected[1:]

    def _judge(self, error: Exception, what: str) -> Exception | None:
        """What a failed request means for good, or `None` where it is worth another attempt."""
        if self.protocol in HTTP and isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # fsspec's HTTP size request turns every failure into this
        status, place = http_status(error), f"{self.location}/{what}"
        if status in _NOT_FOUND or isinstance(error, FileNotFoundError):
            return FileNotFoundError(place)
        if status in _REFUSED or isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
            return StoreError(
                f"access to {place} is refused: {_told(error)}. Check the credentials in the environment "
                "(docs/sharing.md)"
            )
        if isinstance(status, int) and 400 <= status < 500 and status not in _WORTH_REPEATING:
            return StoreError(f"{place}: the server refuses: {_told(error)}")
        if isinstance(error, ImportError | NotImplementedError | TypeError | AttributeError | AssertionError):
            return error
        return None


def check_location(location: str) -> str:
    """A path, or the URL of a store, without a slash at its end.

    Raises:
        StoreError: a URL carries credentials, or a query or fragment.
    """
    if "://" in location:
        parts = urlsplit(location)
        if "@" in parts.netloc:
            raise StoreError(
                f"a {parts.scheme}:// URL must not hold a user or password: they would end up in logs and reports. "
                "Give them in the environment or in ~/.netrc"
            )
        if parts.query or parts.fragment:
            raise StoreError(f"{parts.scheme}://{parts.netloc}{parts.path}?... has a query: give the folder's own URL")
    return location.rstrip("/")


def _connect(location: str, protocol: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    from .local_filesystem import PlainFileSystem
    from .private import check_netrc

    if protocol in HTTP:
        check_netrc(location)

    try:
        options = {"skip_instance_cache": True, "use_listings_cache": False} | _options(protocol)
        filesystem, path = url_to_fs(location if "://" in location else str(Path(location).absolute()), **options)
    except ImportError as error:
        raise StoreError(
            f"{protocol}:// needs a package that is not installed: pip install 'medalign[remote]'"
        ) from error
    except ValueError as error:
        raise StoreError(f"nothing here reads {protocol}:// (s3, gs, hf, http and https are known)") from error
    if isinstance(filesystem, LocalFileSystem):
        filesystem = PlainFileSystem(skip_instance_cache=True)
    return filesystem, str(path).rstrip("/")


def _options(protocol: str) -> dict[str, Any]:
    if protocol in HTTP:
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=_CONNECT_WITHIN, sock_read=_SILENT_AT_MOST)
        return {
            "headers": {"Accept-Encoding": "identity"},  # what is compressed on the way has no byte ranges
            "client_kwargs": {"trust_env": True, "timeout": timeout},  # proxies and ~/.netrc
        }
    if protocol == "s3":
        return {"config_kwargs": {"max_pool_connections": REQUESTS_AT_ONCE, "read_timeout": _SILENT_AT_MOST}}
    return {}


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error of aiohttp, of huggingface_hub, or of botocore, which s3fs wraps."""
    if error is None:
        return None
    answer = getattr(error, "response", None)
    told = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
    found = (getattr(error, "status", None), getattr(answer, "status_code", None), told.get("HTTPStatusCode"))
    return next((status for status in found if isinstance(status, int)), None) or http_status(error.__cause__)


def _told(error: Exception) -> str:
    """An error in one line, without the signatures that redirected URLs carry."""
    text = str(error).splitlines()
    return re.sub(r"\?[^\s'\"]+", "?...", text[0]) if text else type(error).__name__

"""A connection to a store behind a URL: an fsspec filesystem with limits, and errors that say what to check.

Credentials come from the environment, in the variables and files that each protocol's own tools read (AWS_...,
GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN, ~/.netrc). They never appear in a message.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

from ....errors import StoreError
from ....plain_text import counted, is_url, shown, size_text
from .location import check_location
from .server_limits import LIMITS, Budget
from .transports import HTTP, REQUESTS_AT_ONCE, S3, OddAnswer, call

T = TypeVar("T")

_NOT_FOUND, _REFUSED = (404, 410), (401, 403, 407)
_WORTH_REPEATING = (408, 425, 429)
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_LONGEST_MESSAGE: Final = 300

_inherited: list[object] = []
"""Filesystems inherited from a parent process. They stay referenced: closing one here would wait for threads that a
fork does not copy."""


class _Temporary(Exception):
    """A failure of the network or the server that may not happen again."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Connection:
    """A connection that is opened on first use, once in each process, so it survives pickling and forking."""

    def __init__(self, location: str) -> None:
        """Check the URL without connecting.

        Raises:
            StoreError: the URL is misspelled or contains credentials, or it has a query, so that no path can be
                appended to it.
        """
        self.location = check_location(location)
        self._connected: tuple[Budget, Any, str] | None = None

    def __reduce__(self) -> tuple[type["Connection"], tuple[str]]:
        return Connection, (self.location,)

    @property
    def protocol(self) -> str:
        return urlsplit(self.location).scheme if is_url(self.location) else "file"

    @property
    def filesystem(self) -> Any:
        return self._connect()[1]

    @property
    def budget(self) -> Budget:
        """The waiting time and the retries that this process has left for this server."""
        return self._connect()[0]

    def path(self, key: str) -> str:
        """The path of one of the store's files in the filesystem, or of the store itself if `key` is empty."""
        return f"{self._connect()[2]}/{key}".rstrip("/")

    def call(self, what: str, method: str, *arguments: Any, length: int = 0, **options: Any) -> Any:
        """Call a filesystem method that transfers `length` bytes, with retries."""
        return self.patiently(
            what, lambda: call(self.filesystem, method, self.budget, *arguments, length=length, **options)
        )

    def patiently(self, what: str, work: Callable[[], T]) -> T:
        """Run `work()` and retry it if the network or the server fails temporarily.

        Raises:
            FileNotFoundError: the file does not exist.
            StoreError: access is denied, or the last attempt failed too.
        """
        from tenacity import RetryCallState, Retrying, retry_if_exception_type

        budget = self.budget

        def give_up(state: RetryCallState) -> NoReturn:
            assert state.outcome is not None
            error = state.outcome.exception()
            assert isinstance(error, _Temporary)
            if budget.left() <= 0:
                raise self._too_slow(what) from error.cause
            seconds = state.seconds_since_start or 0.0
            raise self._no_answer(what, state.attempt_number, seconds, error.cause) from error.cause

        pauses = budget.limits.pauses
        attempts = Retrying(
            retry=retry_if_exception_type(_Temporary),
            stop=lambda state: budget.left() <= 0 or state.attempt_number > len(pauses) or not budget.repeat(),
            wait=lambda state: (*pauses, 0.0)[state.attempt_number - 1],
            retry_error_callback=give_up,
        )
        with budget.waiting():
            result: T = attempts(self._attempt, what, work)
            budget.answer()
            return result

    def _attempt(self, what: str, work: Callable[[], T]) -> T:
        """Run `work()`; raise `_Temporary` if it failed but is worth another attempt."""
        try:
            return work()
        except OddAnswer as error:
            raise StoreError(f"{self.location}/{what}: {error}") from error
        except StoreError:
            raise
        except Exception as error:
            problem = self._judge(error, what)
            if problem is None:
                raise _Temporary(error) from error
            raise problem from error

    def _no_answer(self, what: str, attempts: int, seconds: float, error: Exception) -> StoreError:
        tried = f"{counted(attempts, 'attempt')} in {seconds:.0f} s"
        return StoreError(
            f"{self.location} does not respond ({what}, {tried}): {_first_line(error)}. Check the network, the server "
            "and its address (such as AWS_ENDPOINT_URL), then run the command again"
        )

    def _too_slow(self, what: str) -> StoreError:
        budget = self.budget
        return StoreError(
            f"{self.location} is too slow ({what}): {budget.waited():.0f} seconds of waiting for "
            f"{counted(budget.answered, 'response')} with {size_text(budget.moved)} exceed the limit in "
            "docs/sharing.md. "
            "Check the network and the server, then run the command again; completed files are kept"
        )

    def _connect(self) -> tuple[Budget, Any, str]:
        """The budget, the fsspec filesystem and the store's path in it. A forked child opens its own.

        Raises:
            StoreError: the protocol is unknown, or its package is not installed.
        """
        if self._connected is None or self._connected[0].process != os.getpid():
            if self._connected is not None:
                _inherited.append(self._connected)
            self._connected = (Budget(LIMITS), *_connect(self.location, self.protocol))
        return self._connected

    def _judge(self, error: Exception, what: str) -> Exception | None:
        """The error to raise for a failed request, or `None` if the request is worth another attempt."""
        status, address = http_status(error), f"{self.location}/{what}"
        if status in _NOT_FOUND or isinstance(error, FileNotFoundError):
            return FileNotFoundError(address)
        if self.protocol == "file" and isinstance(error, OSError):
            return error
        if status in _REFUSED or isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
            return StoreError(
                f"access to {address} is denied: {_first_line(error)}. Check the credentials in the environment "
                "(docs/sharing.md)"
            )
        if type(error).__name__ == "TooManyRedirects" or (isinstance(status, int) and 300 <= status < 400):
            return StoreError(
                f"{address} redirects {LIMITS.redirects} times or more: pass the final address of the store"
            )
        if isinstance(status, int) and 400 <= status < 500 and status not in _WORTH_REPEATING:
            return StoreError(f"{address}: the server rejects the request: {_first_line(error)}")
        if isinstance(error, ImportError | NotImplementedError | TypeError | AttributeError | AssertionError):
            return error
        return None


def _connect(location: str, protocol: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    from ..filesystem.private_files import check_netrc
    from .local_filesystem import PlainFileSystem

    if protocol in HTTP:
        check_netrc(location)

    try:
        options = {"skip_instance_cache": True, "use_listings_cache": False} | _options(protocol)
        filesystem, path = url_to_fs(location if is_url(location) else str(Path(location).absolute()), **options)
    except ImportError as error:
        raise StoreError(
            f"{protocol}:// requires a package that is not installed: pip install 'medalign[remote]'"
        ) from error
    except ValueError as error:
        raise StoreError(f"{protocol}:// is not supported: use s3, gs, hf, http or https") from error
    if protocol in S3:
        filesystem.retries = 1  # `Connection.patiently` does the retries
    if isinstance(filesystem, LocalFileSystem):
        filesystem = PlainFileSystem(skip_instance_cache=True)
    return filesystem, str(path).rstrip("/")


def _options(protocol: str) -> dict[str, Any]:
    if protocol in HTTP:
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=LIMITS.connect, sock_read=LIMITS.silence)
        # Proxies and ~/.netrc are used. Compressed responses are rejected, not decompressed.
        return {"client_kwargs": {"trust_env": True, "timeout": timeout, "auto_decompress": False}}
    if protocol in S3:
        from ...compat.aiobotocore import bounded_session

        return {
            "config_kwargs": {
                "max_pool_connections": REQUESTS_AT_ONCE,
                "connect_timeout": LIMITS.connect,
                "read_timeout": LIMITS.silence,
                "retries": {"total_max_attempts": 1},
                "http_session_cls": bounded_session(LIMITS.message),
            }
        }
    return {}


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status of an error from aiohttp, huggingface_hub or botocore (which s3fs wraps)."""
    if error is None:
        return None
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    statuses = (getattr(error, "status", None), getattr(response, "status_code", None), metadata.get("HTTPStatusCode"))
    return next((status for status in statuses if isinstance(status, int)), None) or http_status(error.__cause__)


def _first_line(error: Exception) -> str:
    """The first line of an error, shortened, without the signatures in redirected URLs."""
    text = str(error).splitlines()
    return shown(text[0])[:_LONGEST_MESSAGE] if text else type(error).__name__

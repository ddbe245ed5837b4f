"""A file behind a URL that is read in ranges, with fsspec's buffering. Importing this module loads fsspec."""

from fsspec.spec import AbstractBufferedFile

from .store_files import StoreFiles

_AHEAD = 1 << 16
"""Bytes that are fetched beyond each read, so that small reads share a request."""


class RangedFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec is not typed
    """A file of `size` bytes of a store; its ranges are requested by the store, with all limits on servers."""

    def __init__(self, files: StoreFiles, key: str, size: int) -> None:
        self._files = files
        super().__init__(None, key, block_size=_AHEAD, cache_type="readahead", size=size)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self._files.read_ranges([(self.path, start, end - start)])[0])

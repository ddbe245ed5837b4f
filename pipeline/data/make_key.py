"""`medalign data make-key`: a lab's secret for the image hashes of its private stores."""

from dataclasses import dataclass
from pathlib import Path

from ...teacher_cache.store.format.keyed_hashes import make_key


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyReport:
    """Where a key is and what stores made with it say; never the key."""

    path: Path
    hashing: str

    def summary(self) -> dict[str, object]:
        return {"key_file": str(self.path), "hashing": self.hashing}


def make_key_file(path: Path) -> KeyReport:
    """Make a key.

    Raises:
        InputError: the file exists or cannot be written.
    """
    return KeyReport(path=path, hashing=make_key(path).hashing)

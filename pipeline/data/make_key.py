"""`medalign data make-key`: create the secret key for image hashes in private stores."""

from dataclasses import dataclass
from pathlib import Path

from ...teacher_cache.store.format.keyed_hashes import make_key


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyReport:
    """The path of a key file and the key's id in stores; never the key."""

    path: Path
    hashing: str

    def summary(self) -> dict[str, object]:
        return {"key_file": str(self.path), "hashing": self.hashing}


def make_key_file(path: Path) -> KeyReport:
    """Create a key file.

    Raises:
        InputError: The file exists or cannot be written.
    """
    return KeyReport(path=path, hashing=make_key(path).hashing)

"""Convert and sign a finished store; neither needs a teacher or images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import StoreError
from ...progress import Progress
from ...teacher_cache.store.checking.format_conversion import ConversionReport, convert
from ...teacher_cache.store.checking.signing import SigningReport, sign


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """A store that was converted, or already had the current format."""

    report: ConversionReport

    def summary(self) -> dict[str, object]:
        return {**asdict(self.report), "store": str(self.report.store)}


def convert_store(store: Path, progress: Progress) -> Conversion:
    """Convert a store to the current format."""
    with writing(store):
        report = convert(store, progress)
    if report.format_version_before == report.format_version:
        progress.note(f"{store} already has format {report.format_version}: nothing was changed")
    return Conversion(report=report)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedStore:
    """A store that was signed."""

    report: SigningReport

    def summary(self) -> dict[str, object]:
        return {**asdict(self.report), "store": str(self.report.store)}


def sign_store(
    store: Path, key: Path, ask: Callable[[], str | None], progress: Progress, *, quick: bool
) -> SignedStore:
    """Verify a store and sign it; `ask` is called for the key's passphrase, if it has one.

    Raises:
        InputError: The key cannot be read, is readable by other users, or cannot sign.
        StoreError: The store is unfinished, damaged, in format 1, or cannot be written.
    """
    from ...teacher_cache.store.signatures.signing_keys import read_signing_key

    signing_key = read_signing_key(key, ask)
    with writing(store):
        return SignedStore(report=sign(store, signing_key, quick=quick, progress=progress))


@contextmanager
def writing(store: Path) -> Iterator[None]:
    """Add the path of the store to write errors."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{store} cannot be written: {error}. Fix the cause and run the command again") from error

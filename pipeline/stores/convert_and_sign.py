"""What changes a finished store and needs neither teacher nor images: converting and signing it."""

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
    """A store that was converted, or was in the present format already."""

    report: ConversionReport

    def summary(self) -> dict[str, object]:
        return {**asdict(self.report), "store": str(self.report.store)}


def convert_store(store: Path, progress: Progress) -> Conversion:
    """Bring a store to the present format."""
    with writing(store):
        report = convert(store, progress)
    if report.format_version_before == report.format_version:
        progress.note(f"{store} has format {report.format_version} already: nothing was changed")
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
        InputError: the key cannot be read, others can read it too, or it cannot sign.
        StoreError: the store is unfinished, damaged, in format 1, or cannot be written.
    """
    from ...teacher_cache.store.signatures.signing_keys import read_signing_key

    signing_key = read_signing_key(key, ask)
    with writing(store):
        return SignedStore(report=sign(store, signing_key, quick=quick, progress=progress))


@contextmanager
def writing(store: Path) -> Iterator[None]:
    """Say which store could not be written."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{store} cannot be written: {error}. Mend that and repeat the command") from error

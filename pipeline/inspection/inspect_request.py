"""The options of `medalign student inspect`."""

from dataclasses import dataclass
from pathlib import Path

from ...choices import DtypeChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectRequest:
    """A student, any number of adapters, and a sample of images with their questions."""

    student: Path
    """Base model folder, or an adapter folder, which records its base."""
    adapters: tuple[Path, ...] = ()
    """Adapters of the same base, each compared with the base."""
    manifest: Path
    root: Path | None = None
    store: str | None = None
    """Path or URL of the teacher store; `None`: no comparison with a teacher."""
    hash_key: Path | None = None
    split: str = "test"
    limit: int = 200
    """Number of images in the sample."""
    shown: int = 50
    """Number of questions that have their own card in the report."""
    template: str | None = None
    """`None`: that of the first adapter, else that of the base."""
    device: str | None = None
    dtype: DtypeChoice = "auto"
    batch_size: int = 8
    max_new_tokens: int = 64
    """Maximum length of an answer, in tokens."""
    seed: int = 0

"""The inputs of a study, each read once: questions, drawn training sets, bases and stores with their fingerprints."""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from ....choices import Dtype, DtypeChoice
from ....student.families.bases import fingerprint_base
from ....teacher_cache.store import TeacherStore, open_store
from ....teacher_cache.store.format.keyed_hashes import given_key
from ...data.manifest import Manifest
from ...data.samples import require_images
from ...training.auto_dtype import auto_dtype
from ..study_spec import ImageSource, LabelSource, QuestionSource
from .label_draws import digest_rows, draw_images, draw_labels, read_questions, save_draw

DRAWS_FOLDER = "draws"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataStore:
    """Where a teacher store is."""

    location: str
    hash_key: Path | None

    def open(self) -> TeacherStore:
        """Open it.

        Raises:
            StoreError: It is missing, unfinished or damaged, or its key is missing.
        """
        return open_store(self.location, given_key(self.hash_key))


class DrawnManifest:
    """Rows that a unit uses, saved in the study's folder."""

    def __init__(self, manifest: Manifest, folder: Path | None) -> None:
        self.manifest = manifest
        self._folder = folder

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the rows."""
        return digest_rows(self.manifest)

    @cached_property
    def path(self) -> Path:
        """The saved manifest."""
        assert self._folder is not None
        return save_draw(self.manifest, self._folder)


class StudyInputs:
    """Reads and remembers; two studies share nothing."""

    def __init__(self, out: Path | None) -> None:
        """`out` is the folder of the study; None if nothing is written (a plan)."""
        draws = None if out is None else out / DRAWS_FOLDER

        read = cache(Manifest.read)

        @cache
        def questions(source: QuestionSource) -> DrawnManifest:
            manifest = read_questions(read(source.manifest, source.root), source)
            require_images(manifest)
            return DrawnManifest(manifest, draws)

        @cache
        def labels(source: LabelSource, seed: int) -> DrawnManifest:
            manifest = draw_labels(read(source.manifest, source.root), source, seed)
            require_images(manifest)
            return DrawnManifest(manifest, draws)

        @cache
        def images(source: ImageSource, seed: int) -> DrawnManifest:
            return DrawnManifest(draw_images(read(source.manifest, source.root), source, seed), draws)

        self.questions, self.labels, self.images = questions, labels, images
        self.base = cache(fingerprint_base)
        self.dtype = cache(_dtype)
        self.store = cache(_store)


def _dtype(base: Path, device: str | None, dtype: DtypeChoice) -> Dtype:
    """The precision of a stage: the chosen one, or what `auto` is on this device."""
    return auto_dtype(base, device, for_card=False) if dtype == "auto" else dtype


def _store(store: DataStore) -> dict[str, str | None]:
    """What identifies a store's content."""
    opened = store.open()
    return {"fingerprint": opened.header.fingerprint, "root_sha256": opened.root_sha256}

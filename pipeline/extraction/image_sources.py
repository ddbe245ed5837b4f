"""The images of an extraction: those of a manifest, or all under a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...choices import DataUse
from ...errors import InputError, SettingsError
from ...path_checks import is_absent
from ...progress import Counting, Progress
from ...teacher_cache.workers.prefetch import ImageSource
from ..data.image_hashing import misplaced_images
from ..data.importers import ImportOptions, import_folder
from ..data.importers.image_folders.folder import count_images, require_folder
from ..data.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRequest:
    """The source of the images; exactly one of `manifest` and `images`."""

    manifest: Path | None = None
    images: Path | None = None
    root: Path | None = None
    """Root of the paths in `manifest`; `None`: the recorded one."""
    data_use: DataUse | None = None
    """Data-use class of the images in `images`, `None` for private; a manifest has its own."""
    limit: int | None = None
    """Only the first N distinct images of a manifest, or the first N image files of a folder; `None`: all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundSources:
    """The images of a request."""

    sources: list[ImageSource]
    unreadable: tuple[str, ...]
    """Why further files could not be read."""
    data_use: DataUse
    """The strictest data-use class of all images."""
    left_out: int = 0
    """Number of images beyond `limit`; for a folder, of image files."""
    no_images: Mapping[str, int] = field(default_factory=dict)
    """Numbers of files in a folder that are not images, by their key in the summary."""

    @property
    def available(self) -> int:
        """Number of images without `limit`."""
        return len(self.sources) + self.left_out


def find_sources(request: ImageRequest, progress: Progress) -> FoundSources:
    """Read the manifest or hash the folder.

    Raises:
        SettingsError: Not exactly one source is given, or an option that does not apply to it.
        InputError: There are no images, or images are missing.
    """
    counting = Counting(progress)
    manifest = _manifest(request, counting)
    every = _sources(manifest)
    sources = every[: request.limit]
    _require_files(sources, manifest.root)
    left_out = len(every) - len(sources)
    if request.limit is not None and request.images is not None:
        left_out = max(0, count_images(request.images) - request.limit)
    return FoundSources(
        sources=sources,
        unreadable=() if left_out else manifest.unreadable,  # recorded when the other images are added
        data_use=manifest.data_use,
        left_out=left_out,
        no_images={name: counting.counts[name] for name in ("hidden_or_system_left_out", "other_files_left_out")},
    )


def listed_sources(request: ImageRequest, progress: Progress) -> list[ImageSource]:
    """The same images, including missing files, for callers that need only some of them.

    Raises:
        SettingsError, InputError: See `find_sources`.
    """
    return _sources(_manifest(request, progress))


def check_image_request(request: ImageRequest) -> None:
    """Check the options of a request, and that its manifest can be read or its folder exists.

    Raises:
        SettingsError, InputError: See `find_sources`.
    """
    _require_one_source(request)
    if request.manifest is not None:
        Manifest.read(request.manifest, request.root)
    elif request.images is not None:
        require_folder(request.images)


def _sources(manifest: Manifest) -> list[ImageSource]:
    rows = manifest.images().select("image", "image_hash", "pixel_hash").iter_rows()
    return [ImageSource(manifest.path_of(name), digest, pixels) for name, digest, pixels in rows]


def _manifest(request: ImageRequest, progress: Progress) -> Manifest:
    _require_one_source(request)
    if request.manifest is not None:
        return Manifest.read(request.manifest, request.root)
    assert request.images is not None
    return import_folder(request.images, ImportOptions(data_use=request.data_use), progress, limit=request.limit)


def _require_one_source(request: ImageRequest) -> None:
    if (request.manifest is None) == (request.images is None):
        raise SettingsError("pass exactly one of --manifest FILE or --images FOLDER")
    if request.manifest is not None and request.data_use is not None:
        raise SettingsError("--data-use only applies to --images: a manifest has its own data-use class")
    if request.images is not None and request.root is not None:
        raise SettingsError(
            "--root only applies to --manifest: with --images, paths are relative to the folder of images"
        )


def _require_files(sources: Sequence[ImageSource], root: Path) -> None:
    """Check that all files exist: missing files are a wrong root or moved data, not damaged images."""
    if not sources:
        raise InputError("the manifest has no images, so there is nothing to extract")
    missing = [source.path for source in sources if is_absent(source.path)]
    if missing:
        raise misplaced_images(missing, len(sources), root, "pass their new root with --root")

"""List the image files under a folder: by name, or by their first bytes if the name does not tell."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .....teacher_cache.images import HEAD_BYTES, looks_like_dicom, looks_like_raster, read_head
from ..common import printable
from .image_files import IMAGE_SUFFIXES, search_folder

_REMEDIES = (
    (
        (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".mgz", ".img.gz"),
        "are volumes: export their slices as PNG or DICOM",
    ),
    ((".svs", ".ndpi", ".mrxs", ".scn", ".vsi", ".czi"), "are whole-slide images: export the regions you need as PNG"),
    ((".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".dcm.gz"), "are archives: unpack them"),
    ((".heic", ".heif", ".avif", ".jxl", ".jxr"), "are unsupported image formats: save them as PNG"),
    ((".npy", ".npz", ".h5", ".hdf5", ".mat", ".parquet"), "are arrays or tables: save each image as PNG"),
)

_KINDS_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The contents of a folder, following links, each folder once."""

    images: list[Path]
    others: list[Path]
    """Files that are not images, except hidden and system files."""
    system: list[Path]
    """Hidden and system files and folders; folders are not searched."""
    closed: list[str]
    """Why folders could not be opened: one line each."""


def list_images(src: Path) -> Listing:
    """Search `src` for images; all lists are sorted."""
    search = search_folder(src)
    images = [path for path in search.files if _is_image(path)]
    others = sorted(set(search.files) - set(images))
    return Listing(images=images, others=others, system=list(search.hidden), closed=list(search.closed))


def describe_others(others: Sequence[Path]) -> str:
    """`3 .csv, 1 .nii.gz; .nii.gz files are volumes: ...`, and an empty string if there are none."""
    counts = Counter(_suffix(path) for path in others)
    kinds = [f"{count} {printable(suffix)}" for suffix, count in counts.most_common()]
    more = f" and {len(kinds) - _KINDS_SHOWN} other kinds" if len(kinds) > _KINDS_SHOWN else ""
    remedies = [
        f"; {', '.join(suffix for suffix in suffixes if suffix in counts)} files {what}"
        for suffixes, what in _REMEDIES
        if counts.keys() & set(suffixes)
    ]
    return ", ".join(kinds[:_KINDS_SHOWN]) + more + "".join(remedies)


def describe_system(system: Sequence[Path]) -> str:
    """`1 .DS_Store, 2 ._* (AppleDouble)`: counts by name, and an empty string if there are none."""
    names = Counter("._* (AppleDouble)" if path.name.startswith("._") else path.name for path in system)
    kinds = [f"{count} {printable(name)}" for name, count in names.most_common(_KINDS_SHOWN)]
    return ", ".join(kinds) + (" and others" if len(names) > _KINDS_SHOWN else "")


def _is_image(path: Path) -> bool:
    """By suffix; else DICOM by its bytes, and other images if the suffix is missing or numeric."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if path.name == "DICOMDIR":
        return False
    head = read_head(path, HEAD_BYTES)
    return looks_like_dicom(head) or (re.fullmatch(r"(\.\d+)?", suffix) is not None and looks_like_raster(head))


def _suffix(path: Path) -> str:
    """The last suffix, including the one before a compression suffix (`.nii.gz`); the name if there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes[1:] == [".gz"] and suffixes[0] in (".nii", ".tar", ".dcm", ".img"):
        return "".join(suffixes)
    return suffixes[-1] if suffixes else path.name

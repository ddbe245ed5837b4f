"""`medalign data import`: run an importer, write the manifest and report on it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ...choices import DataUse
from ...errors import InputError, PartialResult, SettingsError
from ...plain_text import counted
from ...progress import Counting, Progress
from ...suggestions import suggestion
from .importers import IMPORTERS, ImportOptions, Layout, find_layout
from .importers.common import DEFAULT_LANGUAGE
from .importers.splits import Shares, parse_shares, split_by_image, split_name
from .importers.tables.columns import parse_columns
from .manifest import Manifest
from .mask_hashes import with_mask_hashes

_COUNTS = ("narrow_range_images", "hidden_or_system_left_out", "other_files_left_out")


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestReport:
    """A new manifest, its path, and counts for the summary."""

    path: Path
    manifest: Manifest
    layout: str | None = None
    """The layout of the data set; `None` for generated data."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Numbers of skipped or suspicious items, by their key in the summary."""

    def summary(self) -> dict[str, object]:
        frame = self.manifest.frame
        answer_types = self.manifest.questions["answer_type"].drop_nulls().value_counts(sort=True)
        images = self.manifest.images()
        return {
            "manifest": str(self.path),
            "source": self.manifest.source,
            **({} if self.layout is None else {"layout": self.layout}),
            "image_root": str(self.manifest.root),
            "images": images.height,
            "undecodable_images": images.filter(pl.col("pixel_hash").is_null()).height,
            "unreadable_files": len(self.manifest.unreadable),
            **{name: self.counts.get(name, 0) for name in _COUNTS},
            "questions": self.manifest.questions.height,
            "without_answer": self.manifest.questions["answer"].null_count(),
            "splits": self.manifest.splits,
            "answer_types": dict(answer_types.iter_rows()),
            "data_use": sorted(frame["data_use"].unique().to_list()),
        }

    def raise_for_unreadable(self) -> None:
        """Raise PartialResult if files could not be read."""
        reasons = Counter(self.manifest.unreadable)
        if reasons:
            listed = "\n".join(f"  {count}: {reason}" for reason, count in reasons.most_common())
            raise PartialResult(
                f"{counted(reasons.total(), 'file')} could not be read and got no row in {self.path}:\n{listed}\n"
                "Make them readable and run the import again."
            )


def import_manifest(
    kind: str,
    source: Path,
    out: Path,
    *,
    split: str | None,
    data_use: DataUse | None,
    images: Path | None,
    seed: int | None,
    language: str | None,
    columns: Sequence[str] = (),
    progress: Progress,
) -> ManifestReport:
    """Read the data set `kind` in any of its layouts, and write its manifest to `out`.

    `split` is one name for all questions, or fractions for a random split by image; `columns` are strings
    `question=NAME`. Images inside Parquet or ZIP files are written to a folder beside `out`.

    Raises:
        SettingsError: No importer has this name, or an option does not apply to the layout.
        InputError: The layout is unknown, or the data set is incomplete or malformed; every problem is listed.
    """
    if kind not in IMPORTERS:
        known = "\n".join(f"  {importer.name}: {importer.reads}" for importer in IMPORTERS.values())
        raise SettingsError(f"unknown data set {kind!r}{suggestion(kind, IMPORTERS)}; available:\n{known}")
    shares = None if split is None else parse_shares(split)
    pairs = parse_columns(columns)
    given = {"images": images, "seed": seed, "language": language}
    _check_use(kind, IMPORTERS[kind].layouts, shares, given, columns)
    layout, marker = find_layout(IMPORTERS[kind], source)
    _check_use(f"{kind} from {layout.name}", (layout,), shares, given, columns)
    if images is not None and not images.is_dir():
        raise InputError(f"--images {images} is not a folder")
    if marker:
        progress.note(f"layout: {layout.name} ({marker})")
    options = ImportOptions(
        split=None if split is None or shares is not None else split_name(split),
        drawn_split=None if shares is None else split,
        data_use=data_use,
        images=images,
        seed=seed or 0,
        language=language or DEFAULT_LANGUAGE,
        columns=pairs,
        unpacked=out.with_name(f"{out.stem}-images"),
    )
    counting = Counting(progress)
    manifest = layout.run(source, options, counting)
    if shares is not None:
        manifest = split_by_image(manifest, shares, options.seed)
        rows = ", ".join(f"{name} {count}" for name, count in manifest.splits.items())
        progress.note(f"--split {split} puts the rows into: {rows}")
    manifest = with_mask_hashes(manifest, progress)
    manifest.write(out)
    return ManifestReport(path=out, manifest=manifest, layout=layout.name, counts=counting.counts)


def _check_use(
    kind: str, layouts: Sequence[Layout], shares: Shares | None, given: Mapping[str, object], columns: Sequence[str]
) -> None:
    """Check that every option applies to one of the layouts.

    Raises:
        SettingsError: One does not.
    """
    if shares is not None and all(layout.published_split for layout in layouts):
        raise SettingsError(f"--split {_spelt(shares)}: {kind} is published with its own split")
    used = {use for layout in layouts for use in layout.uses} | ({"seed"} if shares is not None else set())
    useless = [f"--{name} {value}" for name, value in given.items() if value is not None and name not in used]
    useless += [f"--column {column}" for column in columns if "column" not in used]
    if useless:
        raise SettingsError(f"{', '.join(useless)}: not used for {kind}")


def _spelt(shares: Shares) -> str:
    return ",".join(f"{name}={share:g}" for name, share in shares.items())

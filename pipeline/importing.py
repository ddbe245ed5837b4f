"""`medalign data import`: one importer run, its manifest written, and what to tell about it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ..errors import PartialResult, SettingsError
from ..progress import Counting, Progress
from .importers import IMPORTERS, Importer, ImportOptions
from .importers.common import DEFAULT_LANGUAGE
from .importers.splits import Shares, parse_shares, split_by_image
from .manifest import DataUse, Manifest

_COUNTS = ("narrow_range_images", "hidden_or_system_left_out", "other_files_left_out")


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestReport:
    """What a manifest holds and where it is."""

    path: Path
    manifest: Manifest
    counts: Mapping[str, int] = field(default_factory=dict)
    """What was left out or looks wrong, by its key in the summary."""

    def summary(self) -> dict[str, object]:
        frame = self.manifest.frame
        answer_types = self.manifest.questions["answer_type"].drop_nulls().value_counts(sort=True)
        images = self.manifest.images()
        return {
            "manifest": str(self.path),
            "source": self.manifest.source,
            "image_root": str(self.manifest.root),
            "images": images.height,
            "undecodable_images": images.filter(pl.col("pixel_hash").is_null()).height,
            "unreadable_files": len(self.manifest.unreadable),
            **{name: self.counts.get(name, 0) for name in _COUNTS},
            "questions": self.manifest.questions.height,
            "splits": self.manifest.splits,
            "answer_types": dict(answer_types.iter_rows()),
            "data_use": sorted(frame["data_use"].unique().to_list()),
        }

    def raise_for_unreadable(self) -> None:
        """Raise PartialResult where files that were found could not be read."""
        reasons = Counter(self.manifest.unreadable)
        if reasons:
            counted = "\n".join(f"  {count}: {reason}" for reason, count in reasons.most_common())
            raise PartialResult(
                f"{reasons.total()} files could not be read and have no row in {self.path}:\n{counted}\n"
                "Make them readable and repeat the import."
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
    progress: Progress,
) -> ManifestReport:
    """Read a data set in the layout `kind` and write its manifest to `out`.

    `split` is one name for all questions, or shares by which every image is drawn into a split.

    Raises:
        SettingsError: no importer has this name, or it has no use for an option that was given.
        InputError: the data set is incomplete or malformed; every problem is listed.
    """
    if kind not in IMPORTERS:
        known = "\n".join(f"  {importer.name}: {importer.reads}" for importer in IMPORTERS.values())
        raise SettingsError(f"no importer is called {kind!r}; there are:\n{known}")
    importer = IMPORTERS[kind]
    shares = None if split is None else parse_shares(split)
    _check_use(importer, shares, {"images": images, "seed": seed, "language": language})
    options = ImportOptions(
        split=split if shares is None else None,
        data_use=data_use,
        images=images,
        seed=seed or 0,
        language=language or DEFAULT_LANGUAGE,
    )
    counting = Counting(progress)
    manifest = importer.run(source, options, counting)
    if shares is not None:
        manifest = split_by_image(manifest, shares, options.seed)
    manifest.write(out)
    return ManifestReport(path=out, manifest=manifest, counts=counting.counts)


def _check_use(importer: Importer, shares: Shares | None, given: Mapping[str, object]) -> None:
    """Hold that the importer has a use for every option that was given.

    Raises:
        SettingsError: it has not.
    """
    if shares is not None and importer.published_split:
        raise SettingsError(f"--split {_spelt(shares)}: {importer.name} is published with a split of its own")
    used = {*importer.uses, *(["seed"] if shares is not None else [])}
    useless = [f"--{name} {value}" for name, value in given.items() if value is not None and name not in used]
    if useless:
        raise SettingsError(f"{', '.join(useless)}: {importer.name} has no use for it")


def _spelt(shares: Shares) -> str:
    return ",".join(f"{name}={share:g}" for name, share in shares.items())

"""Split names, and seeded random splits for data sets without published ones."""

import hashlib
import math
import re
from collections.abc import Mapping

import polars as pl

from ....errors import SettingsError
from ..manifest import Manifest
from ..manifest_images import IMAGE_HASHES, image_groups

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "validate", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of the three usual splits in releases (case-insensitive) -> in manifests."""

Shares = Mapping[str, float]
"""Split -> its fraction of the images; they sum to 1."""


def split_name(released: str) -> str:
    """A release's split name for a manifest: one spelling for the three usual splits; others are stripped."""
    name = released.strip()
    return SPLIT_NAMES.get(name.casefold(), name)


def parse_shares(text: str) -> dict[str, float] | None:
    """Parse `train=0.8,test=0.2`; `None` for a plain split name.

    Raises:
        SettingsError: The fractions are not positive numbers that sum to 1, or a split is repeated.
    """
    if "=" not in text:
        return None
    parts = [part.split("=", 1) for part in text.split(",")]
    wrong = f"--split {text}: expected a name, or fractions that sum to 1 such as train=0.8,validation=0.1,test=0.1"
    try:
        shares = {split_name(name): _share(share) for name, share in parts}
    except ValueError as error:  # a part without `=`, or a fraction that is not a number
        raise SettingsError(wrong) from error
    sane = all(name and share > 0 and math.isfinite(share) for name, share in shares.items())
    if len(shares) != len(parts) or not sane or abs(sum(shares.values()) - 1) > 1e-6:
        raise SettingsError(wrong)
    return shares


def _share(text: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+(?:[eE]-?[0-9]{1,3})?", text):
        raise ValueError(f"{text!r} is not a positive number")
    return float(text)


def drawn_split(group: str, shares: Shares, seed: int) -> str:
    """The split of a group (an image, a patient): a seeded hash, independent of which other groups exist."""
    digest = hashlib.sha256(f"{seed} {group}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    edge = 0.0
    for name, share in shares.items():
        edge += share
        if position < edge:
            return name
    return list(shares)[-1]  # rounding: the fractions may sum to slightly less than 1


def split_by_image(manifest: Manifest, shares: Shares, seed: int) -> Manifest:
    """Draw a random split for every image, so that no image is in two; questions without an image are drawn singly.

    Images that a question connects are drawn together. Rows without a question keep their split.
    """
    groups = image_groups(manifest.frame.select(IMAGE_HASHES).to_series())
    names = [group or question for group, question in zip(groups, manifest.frame["question_id"], strict=True)]
    drawn = pl.Series([drawn_split(name, shares, seed) for name in names], dtype=pl.String)
    asked = pl.col("question").is_not_null()
    frame = manifest.frame.with_columns(pl.when(asked).then(drawn).otherwise("split").alias("split"))
    return Manifest(frame, manifest.root, manifest.source, manifest.unreadable)

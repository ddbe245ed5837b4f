"""Comparing rows of a store with what its teacher computes for their images now.

A digest shows that bytes are as they were written; only this comparison shows that the written values are correct.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional

from ...choices import Dtype, Profile
from ...errors import InputError
from ...progress import Progress, Silent
from ..images import CHANGED, describe_change, image_hash, read_image_bytes
from ..store.access.store_files import StoreFiles
from ..store.format.header import StoreHeader, row_digest
from ..store.format.profiles import DecodedRows, decode, encode, similarity
from ..store.reading.rows import RowReader, StoredRow, row_values
from ..store.records.index import ShardEntry
from ..store.records.ledger import ImageRecord, ShardRecord
from ..store.store_problem import RowComparison
from ..store.writing.closing import shard_entries
from ..teachers.forward import Teacher, TeacherOutput
from ..workers.cores import arithmetic_threads
from ..workers.device_copies import PlainCopies
from ..workers.prefetch import FailedImage, ImageSource, prepare_image


@dataclass(frozen=True, kw_only=True, slots=True)
class Slack:
    """Largest differences expected from the same teacher on another device or in other batches."""

    dS: float
    """Bound on the change of any entry of S, in addition to twice the profile's own change for this image."""
    cosine: float
    """Bound on 1 - cos between stored and recomputed E_v of a patch, in addition to twice the profile's own change."""
    attention: float
    """Bound on the change of any entry of E_a, relative to the image's largest entry."""


SLACK: Final[Mapping[Dtype, Slack]] = {
    "float32": Slack(dS=1e-3, cosine=1e-5, attention=2e-3),
    "bfloat16": Slack(dS=5e-2, cosine=1e-3, attention=5e-2),
    "float16": Slack(dS=5e-2, cosine=1e-3, attention=5e-2),
}
"""Two to four times the measured differences for ViT-B/16 and the phantom teacher: float32 with the patch embedding in
TF32, the default of cuDNN (dS 1.4e-4 and 5.2e-4); bfloat16 in batches of one (1.9e-3 and 1.2e-2). Another image, other
weights or another registration differ by 0.1 or more."""


def draw_rows(records: Sequence[ShardRecord], names: Sequence[str], count: int, seed: int) -> list[int]:
    """Draw `count` random rows, or all if there are fewer, whose images are in `names`; in ascending order.

    Raises:
        InputError: there is no such row.
    """
    known = set(names)
    rows = [image.row for record in records for image in record.images if image.image_hash in known]
    if not rows:
        raise InputError("none of the given images has a row in this store, so nothing can be compared")
    return sorted(random.Random(seed).sample(rows, min(count, len(rows))))


def compare_rows(
    teacher: Teacher,
    files: StoreFiles,
    header: StoreHeader,
    records: Sequence[ShardRecord],
    rows: Sequence[int],
    sources: Mapping[str, ImageSource],
    name: Callable[[str], str] = str,
    progress: Progress | None = None,
) -> list[RowComparison]:
    """Recompute rows from their images and compare them; the keys of `sources` are the store's hashes (`name`).

    Rows are computed one by one. The batch size affects only the last bits, which `SLACK` allows for.

    Raises:
        InputError: an image can no longer be read.
        DamagedStore: a row's bytes are missing or have changed.
    """
    progress = progress or Silent()
    progress.start("recomputing rows", len(rows))
    by_row = {image.row: (record, image) for record in records for image in record.images}
    known = dict(zip((record.shard for record in records), shard_entries(records), strict=True))
    unused = ShardEntry(profile=header.profile, bytes=())  # for shards from which no row is read
    reader = RowReader(files, header, [known.get(shard, unused) for shard in range(header.shards)])
    comparisons = []
    with arithmetic_threads(header.threads):
        for row in rows:
            record, image = by_row[row]
            source = sources[image.image_hash]
            prepared = prepare_image(source, teacher.spec, header.geometry, header.jpeg_scale)
            if isinstance(prepared, FailedImage):
                raise InputError(_unusable(source, prepared.reason, files.location))
            output = teacher.forward(PlainCopies().pixels(teacher, [prepared]))
            (stored,) = reader.read([row], [image.crc32c])
            same_pixels = name(prepared.pixel_hash) == image.pixel_hash
            comparisons.append(_compare(header, record, image, stored, output, same_pixels))
            progress.advance()
    return comparisons


def _unusable(source: ImageSource, reason: str, store: str) -> str:
    row = f"an image with a row in {store} cannot be used"
    if reason != CHANGED:
        return f"{row}: {source.path}: {reason}"
    return f"{row}: {describe_change(source.path, source.image_hash, image_hash(read_image_bytes(source.path)))}"


def _compare(
    header: StoreHeader,
    record: ShardRecord,
    image: ImageRecord,
    row: StoredRow,
    output: TeacherOutput,
    same_pixels: bool,
) -> RowComparison:
    exact, _ = _round_trip("float32", output, header)
    again, digest = _round_trip(record.profile, output, header)
    stored = decode(record.profile, row_values(row), header.native_grid, header.grid)
    slack = SLACK[header.dtype]
    cosine, cosine_now = _least_cosine(stored, exact), _least_cosine(again, exact)
    return RowComparison(
        row=image.row,
        shard=record.shard,
        image_hash=image.image_hash,
        same_pixels=same_pixels,
        bit_equal=digest == image.sha256,
        max_dS=_largest_change(stored, exact),
        max_dS_allowed=2 * _largest_change(again, exact) + slack.dS,
        min_cosine=cosine,
        min_cosine_allowed=None if cosine_now is None else 1 - 2 * (1 - cosine_now) - slack.cosine,
        max_dE_a=float((stored.E_a - exact.E_a).abs().max() / exact.E_a.abs().max()),
        max_dE_a_allowed=slack.attention,
    )


def _round_trip(profile: Profile, output: TeacherOutput, header: StoreHeader) -> tuple[DecodedRows, str]:
    """Encode one image's output in a profile; returns the decoded row and the digest of the stored row."""
    encoded = encode(profile, output.patches, output.attention, header.native_grid, header.grid)
    digest = row_digest(encoded.arrays[array.name][0].data.cast("B") for array in header.arrays(profile))
    return decode(profile, encoded.arrays, header.native_grid, header.grid), digest


def _largest_change(rows: DecodedRows, exact: DecodedRows) -> float:
    """Largest change of any entry of S."""
    return float((similarity(rows) - similarity(exact)).abs().max())


def _least_cosine(rows: DecodedRows, exact: DecodedRows) -> float | None:
    if rows.E_v is None or exact.E_v is None:
        return None
    return float(_cosines(rows.E_v, exact.E_v).min())


def _cosines(
    one: Float32[Tensor, "image patch channel"], other: Float32[Tensor, "image patch channel"]
) -> Float32[Tensor, "image patch"]:
    return functional.cosine_similarity(one.double(), other.double(), dim=-1).float()

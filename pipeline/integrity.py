"""Whether a store can be trusted: what it says about itself, and what a check of its files found. Loads no teacher."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..progress import Progress
from ..teacher_cache.store.access import open_files
from ..teacher_cache.store.contents import read_contents
from ..teacher_cache.store.findings import Problem, RowComparison
from ..teacher_cache.store.trouble import accessing
from ..teacher_cache.store.verify import VerifyReport, verify

SHOWN = 50
"""Problems that a message lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreDescription:
    """What a store says about itself."""

    values: dict[str, object]

    def summary(self) -> dict[str, object]:
        return self.values


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What was checked and what was found."""

    report: VerifyReport
    sample: tuple[RowComparison, ...] = ()
    """Rows that were computed again."""

    def summary(self) -> dict[str, object]:
        report = self.report
        return {
            "store": report.location,
            "verified": report.ok,
            "finished": report.finished,
            "checked": "sizes and ledger" if report.quick else "every byte",
            "bytes_not_checked": report.shard_bytes if report.quick else 0,
            "images": report.images,
            "failures": report.failures,
            "shards": report.shards,
            "bytes": report.bytes,
            "fingerprint": report.header.fingerprint,
            "root_sha256": report.root_sha256,
            **({"sample": _sample_summary(self.sample)} if self.sample else {}),
            "problems": [asdict(problem) for problem in report.problems],
        }

    def raise_for_problems(self) -> None:
        """Raise StoreError where the store is not exactly what its writer committed."""
        report = self.report
        if report.problems:
            shown = "\n".join(f"  {problem}" for problem in report.problems[:SHOWN])
            remedies = "\n".join(advice(report.problems, report.location))
            raise StoreError(f"{report.location} is damaged, {len(report.problems)} problems:\n{shown}\n{remedies}")
        if not report.finished:
            raise StoreError(
                f"{report.location} is sound so far but unfinished, {report.shards} of {report.header.shards} shards: "
                "run the same `medalign teacher extract` with --resume"
            )


def describe_store(location: str) -> StoreDescription:
    """Header, digests and counts of a finished store, at a path or a URL.

    Raises:
        StoreError: it is no store, unfinished, or its index is damaged.
    """
    with accessing(Path(location)):
        contents = read_contents(open_files(location))
    header: dict[str, Any] = contents.header.model_dump(mode="json")
    return StoreDescription(
        values={
            "store": location,
            "images": len(contents.images),
            "failures": len(contents.failures) + len(contents.unreadable),
            "shards": len(contents.shards),
            "shards_by_profile": dict(Counter(shard.profile for shard in contents.shards)),
            "bytes": sum(sum(shard.bytes) for shard in contents.shards),
            "fingerprint": contents.header.fingerprint,
            "root_sha256": contents.root_sha256,
            **header,
        }
    )


def verify_store(location: str, progress: Progress, *, quick: bool = False) -> Verification:
    """Compare the files of a store with its ledger, all bytes of them or their lengths alone."""
    with accessing(Path(location)):
        return Verification(report=verify(location, quick=quick, progress=progress))


def advice(problems: Sequence[Problem], location: str) -> list[str]:
    """Which command mends what was found."""
    kinds = {problem.kind for problem in problems}
    told = []
    if "shard" in kinds:
        told.append(
            f"`medalign teacher repair {location} --weights FILE --manifest MANIFEST` computes damaged shards again "
            "and restores the rest."
        )
    elif "record" in kinds:
        told.append(
            f"`medalign teacher repair {location}` restores this from the rest of the store, where that is sound."
        )
    elif kinds - {"stranger", "content"}:
        told.append(f"`medalign teacher repair {location}` restores this; it needs neither weights nor images.")
    if "stranger" in kinds:
        told.append("Files that are no part of the store are left alone: move them away yourself.")
    if "content" in kinds:
        told.append("What a teacher or two headers contradict no repair can settle: ask where the store was made.")
    return told


def _sample_summary(rows: Sequence[RowComparison]) -> dict[str, object]:
    cosines = [row.min_cosine for row in rows if row.min_cosine is not None]
    return {
        "rows": len(rows),
        "bit_equal": sum(row.bit_equal for row in rows),
        "within_bounds": sum(row.within for row in rows),
        "same_pixels": sum(row.same_pixels for row in rows),
        "max_dS": max(row.max_dS for row in rows),
        "min_cosine": min(cosines) if cosines else None,
        "max_dE_a": max(row.max_dE_a for row in rows),
        "each": [asdict(row) for row in rows],
    }

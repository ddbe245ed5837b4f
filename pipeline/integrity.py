"""Whether a store can be trusted: what it says about itself, and what a check of its files finds."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import StoreError
from ..progress import Progress
from ..teacher_cache.store.access import open_files
from ..teacher_cache.store.contents import read_contents
from ..teacher_cache.store.verify import VerifyReport, verify

_SHOWN = 50


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
            "problems": [asdict(problem) for problem in report.problems],
        }

    def raise_for_problems(self) -> None:
        """Raise StoreError where the store is not exactly what its writer committed."""
        report = self.report
        if report.problems:
            shown = "\n".join(f"  {problem}" for problem in report.problems[:_SHOWN])
            raise StoreError(
                f"{report.location} is damaged, {len(report.problems)} problems:\n{shown}\n{_advice(report)}"
            )
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
    return Verification(report=verify(location, quick=quick, progress=progress))


def _advice(report: VerifyReport) -> str:
    """Which command mends what was found."""
    kinds = {problem.kind for problem in report.problems}
    told = []
    if kinds & {"shard", "record"}:
        told.append(
            f"`medalign teacher repair {report.location} --weights FILE --manifest MANIFEST` computes damaged shards "
            "again and restores the rest"
        )
    elif kinds - {"stranger", "content"}:
        told.append(f"`medalign teacher repair {report.location}` restores this; it needs neither weights nor images")
    if "stranger" in kinds:
        told.append("files that are no part of the store are left alone: move them away yourself")
    if "content" in kinds:
        told.append("what no digest settles must come again from where the store was made")
    return "\n".join(f"{line[0].upper() if line[0] != '`' else line[0]}{line[1:]}." for line in told)

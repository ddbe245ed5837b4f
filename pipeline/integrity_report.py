"""What is told of a store: what it says of itself, what a check found, what a repair did."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..errors import StoreError
from ..teacher_cache.recheck import RowComparison
from ..teacher_cache.repair import RepairReport
from ..teacher_cache.store.findings import Problem
from ..teacher_cache.store.verify import VerifyReport

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
            shown = "\n".join(f"  {problem}" for problem in report.problems[:_SHOWN])
            advice = "\n".join(_advice(report.problems, report.location))
            raise StoreError(f"{report.location} is damaged, {len(report.problems)} problems:\n{shown}\n{advice}")
        if not report.finished:
            raise StoreError(
                f"{report.location} is sound so far but unfinished, {report.shards} of {report.header.shards} shards: "
                "run the same `medalign teacher extract` with --resume"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """What was damaged, what was done about it, and what is left."""

    report: RepairReport

    def summary(self) -> dict[str, object]:
        report = self.report
        return {
            "store": str(report.store),
            "problems_found": len(report.found),
            "files_restored": len(report.restored),
            "shards_computed_again": len(report.shards),
            "rows_computed_again": sum(shard.rows for shard in report.shards),
            "rows_equal_to_what_was_committed": sum(shard.equal or 0 for shard in report.shards),
            "problems_left": len(report.left),
            "root_sha256_before": report.root_before,
            "root_sha256": report.root_after,
            "found": [asdict(problem) for problem in report.found],
            "restored": list(report.restored),
            "shards": [asdict(shard) for shard in report.shards],
            "left": [asdict(problem) for problem in report.left],
        }

    def raise_for_rest(self) -> None:
        """Raise StoreError where something is still damaged."""
        report = self.report
        lacking = [f"  shard {shard} needs {what}" for shard, what in list(report.lacking.items())[:_SHOWN]]
        left = [f"  {problem}" for problem in report.left[:_SHOWN]]
        if left:
            told = "\n".join([*left, *lacking, *_advice(report.left, str(report.store))])
            raise StoreError(f"{report.store} is still damaged, {len(report.left)} problems:\n{told}")


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


def _advice(problems: Sequence[Problem], location: str) -> list[str]:
    """Which command mends what was found."""
    kinds = {problem.kind for problem in problems}
    told = []
    if kinds & {"shard", "record"}:
        told.append(
            f"`medalign teacher repair {location} --weights FILE --manifest MANIFEST` computes damaged shards again "
            "and restores the rest."
        )
    elif kinds - {"stranger", "content"}:
        told.append(f"`medalign teacher repair {location}` restores this; it needs neither weights nor images.")
    if "stranger" in kinds:
        told.append("Files that are no part of the store are left alone: move them away yourself.")
    if "content" in kinds:
        told.append("What a teacher or two headers contradict no repair can settle: ask where the store was made.")
    return told

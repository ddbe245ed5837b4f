"""`medalign store info` and `verify`: describe a store and check its files, without a teacher."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import SettingsError, StoreError
from ...plain_text import as_typed, counted, is_url
from ...progress import Progress
from ...teacher_cache.store.access.remote import open_files
from ...teacher_cache.store.checking.verification import VerifyReport, verify
from ...teacher_cache.store.file_names import SIGNATURE_FILE
from ...teacher_cache.store.filesystem.filesystem_errors import accessing
from ...teacher_cache.store.format.header import StoreHeader
from ...teacher_cache.store.reading.contents import read_contents
from ...teacher_cache.store.reading.root_digest import NOT_UNDER_ROOT_1, version_note
from ...teacher_cache.store.signatures.signature import damaged_signature, named_key
from ...teacher_cache.store.store_errors import FROM_SENDER, GET_IT_AGAIN
from ...teacher_cache.store.store_problem import UNTRUSTED, Problem, RowComparison

_IS_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch

SHOWN = 50
"""Number of problems that a message lists."""

_BESIDE_CONTENTS = ("derived", "leftover", "stranger")
"""Kinds of problems of files that the root digest does not cover."""

QUICK = "sizes and small files only"
"""What a quick check finds undamaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreDescription:
    """The description that a store contains."""

    values: dict[str, object]

    def summary(self) -> dict[str, object]:
        return self.values


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """The result of a check."""

    report: VerifyReport
    sample: tuple[RowComparison, ...] = ()
    """Rows that were recomputed."""

    def summary(self) -> dict[str, object]:
        report = self.report
        return {
            "store": report.location,
            "undamaged": QUICK if report.quick and not self._damage() else not self._damage(),
            "verified": None if report.quick and report.ok else report.ok,
            "finished": report.finished,
            "checked": "sizes and ledger" if report.quick else "every byte",
            "bytes_not_checked": report.shard_bytes if report.quick else 0,
            "images": report.images,
            "failures": report.failures,
            "shards": report.shards,
            "bytes_on_disk": report.bytes,
            "format_version": report.header.format_version,
            "fingerprint": report.header.fingerprint,
            **self._root(),
            "signed_by": _signer(report, damaged=self._damage()),
            **({"sample": _sample_summary(self.sample)} if self.sample else {}),
            "problems": [asdict(problem) for problem in report.problems],
        }

    def table(self) -> dict[str, object]:
        """The summary for people: only the number of problems, because `raise_for_problems` lists them."""
        return {**self.summary(), "problems": len(self.report.problems)}

    def _root(self) -> dict[str, object]:
        """The root digest; only a claim until the rows were compared with it."""
        report = self.report
        recomputed = None if report.quick else report.root_sha256
        roots = {"root_sha256": recomputed} if recomputed else {"claimed_root_sha256": report.claimed_root_sha256}
        return {**roots, **self._expected(), **_not_covered(report.header)}

    def _expected(self) -> dict[str, object]:
        """How the root digest compares with the one of --expect-root; empty without it."""
        report = self.report
        if report.expected_root is None:
            return {}
        if any(problem.kind == "other root" for problem in report.problems):
            return {"expected_root": "not compared" if self._damage() else "differs"}
        if report.root_sha256 != report.expected_root:
            return {"expected_root": "not compared"}
        return {"expected_root": "matches the claimed root digest" if report.quick else "matches"}

    def _damage(self) -> bool:
        return any(problem.kind not in UNTRUSTED for problem in self.report.problems)

    def raise_for_problems(self) -> None:
        """Raise StoreError if the store differs from what its writer committed, or is not the one requested."""
        report = self.report
        if self._damage():
            shown = "\n".join(f"  {problem}" for problem in report.problems[:SHOWN])
            found = counted(len(report.problems), "problem")
            raise StoreError(f"{report.location} is damaged, {found}:\n{shown}\n{self._remedies()}")
        if not report.finished:
            raise StoreError(
                f"{report.location} is undamaged but unfinished, {report.shards} of {report.header.shards} shards: "
                "run the same `medalign teacher extract` with --resume"
            )
        if report.problems:
            sound = f"undamaged ({QUICK})" if report.quick else "undamaged"
            differences = "; and it is ".join(map(self._untrusted, report.problems))
            raise StoreError(f"{report.location} is {sound}, but {differences}")

    def _untrusted(self, problem: Problem) -> str:
        """How an undamaged store differs from the one that the caller trusts."""
        if problem.kind == "other root":
            return (
                f"its {problem.what.removeprefix('the ')}: compare the digest with the one that the authors publish; "
                "the SHA-256 of the ZIP is a different value"
            )
        return (
            f"not signed with the key of --signed-by: {problem.what}. This needs no repair: ask the store's authors "
            "which key they sign with, or compare the root digest that they publish (--expect-root)"
        )

    def _remedies(self) -> str:
        if self.report.conversion_interrupted:
            command = f"`medalign store convert {as_typed(self.report.location)}`"
            return f"A conversion was interrupted; {command} completes it."
        return "\n".join(advice(self.report.problems, self.report.location))


def describe_store(location: str) -> StoreDescription:
    """The description in a finished store at a path or a URL, without any checks.

    Raises:
        StoreError: It is not a store, is unfinished, or its index is damaged.
    """
    with accessing(Path(location)):
        files = open_files(location)
        contents = read_contents(files)
        signature = files.read(SIGNATURE_FILE) if files.exists(SIGNATURE_FILE) else None
    stored: dict[str, Any] = contents.header.model_dump(mode="json")
    header = {"license" if name == "licence" else name: value for name, value in stored.items()}
    return StoreDescription(
        values={
            "store": location,
            "images": len(contents.images),
            "failures": len(contents.failures) + len(contents.unreadable),
            "shards": len(contents.shards),
            "shards_by_profile": dict(Counter(shard.profile for shard in contents.shards)),
            "bytes_in_shards": sum(sum(shard.bytes) for shard in contents.shards),
            "fingerprint": contents.header.fingerprint,
            "claimed_root_sha256": contents.root_sha256,
            **_not_covered(contents.header),
            "signed_by": None if signature is None else _unverified(named_key(signature), location),
            **header,
        }
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trusted:
    """What a store must match, in addition to being undamaged."""

    root_sha256: str | None = None
    """Its root digest, as published by its authors."""
    signed_by: str | None = None
    """A public key: a file, or the text of an OpenSSH key."""


def verify_store(
    location: str, progress: Progress, *, quick: bool = False, trusted: Trusted | None = None
) -> Verification:
    """Compare the files of a store with its ledger: all bytes, or only the sizes.

    Raises:
        SettingsError: The expected root digest is invalid.
        InputError: The public key cannot be read.
    """
    trusted = trusted or Trusted()
    root = None if trusted.root_sha256 is None else trusted.root_sha256.lower().removeprefix("sha256:")
    if root is not None and not _IS_DIGEST(root):
        raise SettingsError(f"--expect-root must be a root digest, 64 hex digits, not {trusted.root_sha256!r}")
    key = None
    if trusted.signed_by is not None:
        from ...teacher_cache.store.signatures.signing_keys import read_verify_key

        key = read_verify_key(trusted.signed_by)
    with accessing(Path(location)):
        report = verify(location, quick=quick, expected_root=root, signed_by=key, progress=progress)
    if report.header.format_version == 1:
        progress.note(version_note(location))
    return Verification(report=report)


def advice(problems: Sequence[Problem], location: str) -> list[str]:
    """The commands that repair the problems."""
    kinds = {problem.kind for problem in problems}
    told = []
    if "other root" in kinds:
        told.append(
            "The root digest is not the expected one, either. Compare it with the one that the authors publish; the "
            "SHA-256 of the ZIP is a different value."
        )
    if kinds & {"root", "signature", "other root"}:
        told.append(
            f"Do not repair {location}: a repair would give a modified store matching digests. "
            f"{GET_IT_AGAIN.capitalize()}. If you changed it yourself, `medalign store sign` signs its current content."
        )
        kinds = kinds & {"stranger"}
    if "signature file" in kinds:
        told.append(damaged_signature(location))
    if "shard" in kinds:
        told.append(
            f"`medalign store repair {as_typed(location)} --weights FILE --manifest MANIFEST` recomputes damaged "
            f"shards and restores the rest, {FROM_SENDER}."
        )
    elif "record" in kinds:
        told.append(f"`medalign store repair {as_typed(location)}` restores this from the undamaged rest of the store.")
    elif kinds - {"stranger", "content", "signature file", *UNTRUSTED}:
        told.append(f"`medalign store repair {as_typed(location)}` restores this; it needs neither weights nor images.")
    if "stranger" in kinds:
        told.append("Unexpected files are not deleted: move them out of the store yourself.")
    if "content" in kinds:
        told.append("A contradiction with the teacher or between headers cannot be repaired: ask the store's authors.")
    return told


def _signer(report: VerifyReport, *, damaged: bool) -> str | None:
    """Who signed a store; "verified" only if its contents have the signed root digest."""
    signature = report.signature
    if signature.key is None:
        return None
    if signature.untrusted:
        return f"{signature.key}, another key"
    if not signature.trusted:
        return _unverified(signature.key, report.location)
    if not damaged and report.finished and not report.quick:
        return f"{signature.key}, verified"
    root = "the claimed root digest" if signature.compared else "the root digest that it states"
    return f"{signature.key}, a signature that is valid for {root}, but {_unproven(report, damaged)}"


def _unproven(report: VerifyReport, damaged: bool) -> str:
    """Why a valid signature does not vouch for the contents of a store."""
    if any(problem.kind not in (*UNTRUSTED, *_BESIDE_CONTENTS) for problem in report.problems):
        return "the contents do not match it"
    if damaged:
        return "the store is damaged"
    return "not every byte was compared with it" if report.finished else "the store is unfinished"


def _unverified(key: str | None, location: str) -> str:
    named = key or "a signature that cannot be read"
    quick = " --quick" if is_url(location) else ""  # every byte is only checked in a local folder
    return f"{named}, not verified: `medalign store verify {as_typed(location)}{quick} --signed-by PUBKEY`"


def _not_covered(header: StoreHeader) -> dict[str, object]:
    return {"root_does_not_cover": NOT_UNDER_ROOT_1} if header.format_version == 1 else {}


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

"""The report of an extraction."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import PartialResult
from ...plain_text import as_typed, counted
from ...progress import Progress
from ...teacher_cache.extraction.stage_one import ExtractionReport
from .image_sources import FoundSources

_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreReport:
    """The result of an extraction or extension."""

    report: ExtractionReport
    found: FoundSources
    """The images of this run."""
    files: Mapping[str, Path]
    """The file of each image of this run, by its hash in the store."""
    changed: tuple[Path, ...] = ()
    """Files whose content changed after they were hashed."""

    def summary(self) -> dict[str, object]:
        report = self.report
        return {
            "store": str(report.out),
            "grid": report.grid,
            "images": report.images,
            "images_left_out_by_limit": self.found.left_out,
            "failures": len(report.failures),
            "unreadable_files": len(report.unreadable),
            "narrow_range_images": report.narrow_images,
            **self.found.no_images,
            "shards_written": report.shards_done,
            "shards_kept_from_an_earlier_run": report.shards_reused,
            "shards_begun_by_an_earlier_run": report.shards_redone,
            "profiles": dict(report.profiles),
            "workers": report.workers,
            "seconds": round(report.seconds, 2),
            "images_per_second": round(report.images_per_second, 2),
            "share_waiting_for_images": round(report.decode_share, 3),
            "share_in_the_teacher": round(report.forward_share, 3),
            "share_waiting_for_the_disk": round(report.write_share, 3),
            "bytes_on_disk": report.bytes,
            "root_sha256": report.root_sha256,
            "failed": [asdict(failure) for failure in report.failures],
            "unreadable": list(report.unreadable),
        }

    def note_rest(self, progress: Progress) -> None:
        """Note how to add the images beyond --limit."""
        if self.found.left_out:
            progress.note(
                f"to add the other {self.found.left_out} images, run "
                f"`medalign store extend {as_typed(self.report.out)}` with the same images and weights, "
                "but without --limit"
            )

    def raise_for_failures(self) -> None:
        """Raise PartialResult if images of this run have no row, or files could not be read.

        Images that earlier runs recorded as failed, and that this run was not given, do not count.
        """
        report = self.report
        failures = [failure for failure in report.failures if failure.image_hash in self.files]
        lines = [f"  {self.files[each.image_hash]} ({each.image_hash[:12]}): {each.reason}" for each in failures]
        lines += [f"  unreadable file: {reason}" for reason in report.unreadable]
        if lines:
            shown = "\n".join([*lines[:_SHOWN], *self._changed_files()])
            images = counted(len(lines), "image has", "images have")
            raise PartialResult(
                f"{images} no row in {report.out}; its failures.parquet lists them:\n{shown}\n"
                f"{self._rest(len(failures))} Training rejects questions about them. Replace damaged files, import the "
                "data set again and add them with `medalign store extend`, or remove their questions; `medalign store "
                "extend --retry-failed` tries the same files again.",
                report=self,
            )

    def _rest(self, failed: int) -> str:
        none_done = failed >= len(self.files)
        return "No image has a row." if none_done else "All other images have one."

    def _changed_files(self) -> Iterator[str]:
        if self.changed:
            subject = counted(len(self.changed), "file differs", "files differ")
            yield (
                f"{subject} from the manifest, first {self.changed[0]}: "
                "`medalign data check MANIFEST --hashes` reports the content of each file."
            )

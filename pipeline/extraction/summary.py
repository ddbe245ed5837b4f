"""What a run of stage one is shown as."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import PartialResult
from ...plain_text import counted
from ...progress import Progress
from ...teacher_cache.extraction.stage_one import ExtractionReport
from .image_sources import FoundSources

_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreReport:
    """A run on a store that wrote what was its to write."""

    report: ExtractionReport
    found: FoundSources
    """The images of this run."""
    changed: tuple[Path, ...] = ()
    """Files that do not hold the image that they were hashed as."""

    def summary(self) -> dict[str, object]:
        report = self.report
        return {
            "store": str(report.out),
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
            "bytes": report.bytes,
            "root_sha256": report.root_sha256,
            "failed": [asdict(failure) for failure in report.failures],
            "unreadable": list(report.unreadable),
        }

    def note_rest(self, progress: Progress) -> None:
        """Say how images that --limit left out are added."""
        if self.found.left_out:
            progress.note(
                f"`medalign teacher extend {self.report.out}` with the same images and weights, without --limit, adds "
                f"the other {self.found.left_out} images"
            )

    def raise_for_failures(self) -> None:
        """Raise PartialResult where images of the store failed, or files could not even be read."""
        report = self.report
        lines = [f"  {failure.image_hash[:12]}: {failure.reason}" for failure in report.failures]
        lines += [f"  unreadable file: {reason}" for reason in report.unreadable]
        if lines:
            shown = "\n".join([*lines[:_SHOWN], *self._changed_files()])
            raise PartialResult(
                f"images without a row in {report.out}: {len(lines)}; its failures.parquet lists them:\n{shown}\n"
                f"{self._rest()} Mend or drop these images; training refuses questions about them. "
                "`medalign teacher extend --retry-failed` tries them again.",
                report=self,
            )

    def _rest(self) -> str:
        none_done = len(self.report.failures) >= self.report.images
        return "No image has a row." if none_done else "All others are there."

    def _changed_files(self) -> Iterator[str]:
        if self.changed:
            subject = counted(len(self.changed), "file is not the image", "files are not the images")
            yield (
                f"{subject} that the manifest names, first {self.changed[0]}: "
                "`medalign data check MANIFEST --hashes` says which image is where."
            )

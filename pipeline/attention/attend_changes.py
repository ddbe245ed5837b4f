"""What an adapter changed in the attention to an image, in one sentence with numbers."""

from collections.abc import Iterator

from ...student.inspection.image_attention import ImageAttention
from .attend_figures import image_title, percent
from .attend_report import AttendedImage, AttendReport


def change_sentences(report: AttendReport) -> list[str]:
    """One sentence for each adapter and image; none without adapters."""
    return [
        f"What {name} changed{'' if len(report.images) == 1 else f' on {image_title(report, number)}'}: "
        f"{'; '.join(_parts(image, image.base, after))}."
        for number, image in enumerate(report.images)
        for name, after in image.adapters.items()
    ]


def _parts(image: AttendedImage, before: ImageAttention, after: ImageAttention) -> Iterator[str]:
    yield f"the image gets {_instead(before.mean_share, after.mean_share)} of the question's attention"
    yield f"{percent(after.moved_from(before))} of the attention on the image moved to other cells"
    yield f"cells on the border get {_instead(before.border_share, after.border_share)} of it"
    if after.has_padding:
        yield f"cells of padding get {_instead(before.padding_share, after.padding_share)}"
    kls = [None if image.teacher is None else image.teacher.mean_divergence(record) for record in (before, after)]
    if kls[0] is not None and kls[1] is not None:
        yield f"its divergence from the teacher's (KL) is {kls[1]:.3f} instead of {kls[0]:.3f} nats"


def _instead(before: float, after: float) -> str:
    was, now = percent(before), percent(after)
    return f"{now}, as before," if was == now else f"{now} instead of {was}"

"""Select the questions of a manifest that can be measured, and their regions."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from ....errors import InputError
from ....student.metrics.region_attention import region_coverage
from ....teacher_cache.geometry.patch_grid import PatchGrid
from ..manifest import Manifest
from ..mask_hashes import mask_hashes
from ..regions import Region, read_regions
from .region_masks import region_pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundedQuestions:
    """Questions with a region, in the manifest's order."""

    manifest: Manifest
    regions: tuple[tuple[Region, ...], ...]
    """The regions of each question; never empty."""
    left_out: dict[str, int]
    """Why other questions of the split are not measured -> their number."""

    @property
    def names(self) -> list[tuple[str, ...]]:
        """The distinct names of each question's regions, sorted."""
        return [tuple(sorted({region.name for region in regions})) for regions in self.regions]


def grounded_questions(manifest: Manifest, wanted: Sequence[str], limit: int | None) -> GroundedQuestions:
    """Select regions for every question: those with a name in `wanted`, or, if that is empty, those it mentions.

    Raises:
        InputError: No question has any; the message has the reasons and the existing names.
    """
    questions = manifest.questions
    chosen: list[tuple[Region, ...]] = []
    kept: list[bool] = []
    left_out: Counter[str] = Counter()
    for question, answer, width, cell in questions.select("question", "answer", "width", "regions").iter_rows():
        found = read_regions(cell)
        about = _about(question, answer, found, wanted)
        reason = _reason(width, found, about, wanted)
        if reason is None and limit is not None and len(chosen) == limit:
            reason = "beyond --limit"
        kept.append(reason is None)
        if reason is None:
            chosen.append(about)
        else:
            left_out[reason] += 1
    if not chosen:
        raise InputError(_nothing(manifest, questions, left_out))
    rows = questions.filter(pl.Series(kept, dtype=pl.Boolean))
    return GroundedQuestions(
        manifest=Manifest(rows, manifest.root, manifest.source), regions=tuple(chosen), left_out=dict(left_out)
    )


def coverage_of(questions: GroundedQuestions, grid: PatchGrid) -> Float[Tensor, "questions patches"]:
    """Fraction of each patch that the regions of a question cover; the masks of each image are read once.

    Raises:
        InputError: A mask is missing, differs from the manifest or does not fit its image, or regions cover nothing
            (the first few are listed).
    """
    maps, index = distinct_coverage(questions, grid)
    return maps[index]


def distinct_coverage(questions: GroundedQuestions, grid: PatchGrid) -> tuple[Float[Tensor, "maps patches"], list[int]]:
    """`coverage_of` without repetitions: the distinct maps, and the index of each question's map.

    Raises:
        InputError: as `coverage_of`.
    """
    known: dict[tuple[object, ...], int] = {}
    hashes = mask_hashes(questions.manifest.frame)
    rows = questions.manifest.frame.select("question_id", "image_hash", "width", "height").iter_rows()
    maps: list[Tensor] = []
    index: list[int] = []
    empty: list[str] = []
    for regions, (question_id, image_hash, width, height) in zip(questions.regions, rows, strict=True):
        key = (image_hash, regions)
        if key not in known:
            known[key] = len(maps)
            pixels = region_pixels(regions, questions.manifest.root, width, height, hashes)
            maps.append(region_coverage(pixels, grid))
        index.append(known[key])
        if not bool(maps[known[key]].any()):
            empty.append(f"{question_id} ({', '.join(sorted({region.name for region in regions}))})")
    if empty:
        raise InputError(
            f"the regions of {len(empty)} of {len(index)} questions cover no pixel of their image; first: "
            f"{'; '.join(empty[:3])}. Their masks are empty or their boxes are outside: correct the manifest"
        )
    return torch.stack(maps), index


def _about(question: str, answer: str | None, found: tuple[Region, ...], wanted: Sequence[str]) -> tuple[Region, ...]:
    if not wanted:
        return regions_named(question, answer, found)
    folded = {name.casefold() for name in wanted}
    return tuple(region for region in found if region.name.casefold() in folded)


def _reason(
    width: int | None, found: tuple[Region, ...], about: tuple[Region, ...], wanted: Sequence[str]
) -> str | None:
    """Why a question cannot be measured; `None` if it can."""
    if not found:
        return "about images without regions"
    if width is None:
        return "about images of unknown size"
    if not about:
        return "about images without these regions" if wanted else "mentioning no region of the image"
    return None


def _nothing(manifest: Manifest, questions: pl.DataFrame, left_out: Counter[str]) -> str:
    told = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common()) or "it has no questions"
    names = region_names(questions["regions"].to_list())
    return (
        f"no question of the {manifest.source} manifest (split {', '.join(manifest.splits)}) can be measured: {told}. "
        f"Available regions: {', '.join(names) or 'none; import the data again with its masks or boxes'}"
    )


def region_names(cells: Iterable[list[dict[str, str]]]) -> list[str]:
    """All region names, the most frequent first."""
    return [name for name, _ in Counter(item["name"] for cell in cells for item in cell).most_common()]


def regions_named(question: str, answer: str | None, regions: Sequence[Region]) -> tuple[Region, ...]:
    """The regions that a question mentions, or else those that its reference answer mentions.

    Names match whole words, in any case, singular or plural. Longer names are matched first and consume their words, so
    that "left lung" does not match `lung` too. The last word of a name also matches: "kidneys" matches `left kidney`
    and `right kidney`.
    """
    for text in (question, answer or ""):
        names = _names_in(text, {region.name for region in regions})
        if names:
            return tuple(region for region in regions if region.name in names)
    return ()


def _names_in(text: str, names: set[str]) -> set[str]:
    found: set[str] = set()
    for name in sorted(names, key=lambda name: (-len(name), name)):
        rest = re.sub(_pattern(name), " | ", text)
        if rest != text:
            found.add(name)
            text = rest
    return found | {name for name in names if re.search(_pattern(re.split(r"[\s_]+", name)[-1]), text)}


def _pattern(name: str) -> re.Pattern[str]:
    words = r"[\s_]+".join(map(re.escape, re.split(r"[\s_]+", name.strip())))
    return re.compile(rf"(?<!\w){words}(?:e?s)?(?!\w)", re.IGNORECASE)

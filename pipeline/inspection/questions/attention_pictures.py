"""Attention over images, through the views of each image: example questions, all layers, and one picture a question."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ...reports.figures.figure import Figure
from ...reports.figures.overlays import Outline, Overlay, map_views, overlays
from .asked_questions import AskedQuestions, TeacherMaps
from .attention_measures import ArmAttention

_MOST_COLUMNS: Final = 10
"""Panels side by side in the figure of all layers."""
_SATURATION: Final = 0.98
"""Otherwise a single sink leaves the rest of a map dark."""


def question_panels(
    questions: AskedQuestions,
    index: int,
    arms: Mapping[str, ArmAttention],
    teacher: TeacherMaps | None,
    layer: int,
) -> list[Overlay]:
    """The image with its regions, the teacher's map, and each arm's map at one layer and in the mean over layers."""
    image, outlines = questions.picture(index), outlines_of(questions, index)
    panels = [Overlay(title="image", image=image, outlines=outlines)]
    if teacher is not None:
        values = teacher.E_a[questions.frame["image_hash"][index]].numpy()
        views = map_views(teacher.layout(*questions.sizes[index]), values)
        panels.append(Overlay(title="teacher (E_a)", image=image, views=views, outlines=outlines))
    for title, at in ((f"layer {layer}", layer), ("mean", -1)):
        for name, arm in arms.items():
            views = map_views(questions.layouts[index], arm.maps[index, at].numpy())
            panels.append(Overlay(title=f"{name}, {title}", image=image, views=views, outlines=outlines))
    return panels


def layer_panels(questions: AskedQuestions, index: int, arms: Mapping[str, ArmAttention]) -> list[Overlay]:
    """Each arm's map at every layer."""
    image, outlines = questions.picture(index), outlines_of(questions, index)
    return [
        Overlay(
            title=f"{name}, {layer}",
            image=image,
            views=map_views(questions.layouts[index], arm.maps[index, layer].numpy()),
            outlines=outlines,
        )
        for name, arm in arms.items()
        for layer in range(arm.maps.shape[1] - 1)
    ]


def example_figure(
    questions: AskedQuestions,
    indices: Sequence[int],
    arms: Mapping[str, ArmAttention],
    teacher: TeacherMaps | None,
    layer: int,
) -> Figure:
    """A few questions, one after the other, with all maps of `question_panels`."""
    panels = []
    for index in indices:
        question, *maps = question_panels(questions, index, arms, teacher, layer)
        panels += [Overlay(title=_text(questions, index), image=question.image, outlines=question.outlines), *maps]
    count = len(panels) // len(indices)
    return overlays(
        name="attention-examples",
        title="Attention on the image for some questions",
        caption=f"{count} panels for each question. Brighter is more attention; each panel has its own range of "
        f"colors, and its brightest 2 % of cells have the same color.{_outline_words(panels)} These are examples; the "
        "curves and tables have the numbers.",
        alt=f"Attention maps over the images of {len(indices)} questions, for "
        f"{'the teacher and ' if teacher is not None else ''}{', '.join(arms)}.",
        panels=panels,
        columns=count // 2 if count > 5 and count % 2 == 0 else count,
        saturation=_SATURATION,
    )


def layer_figure(questions: AskedQuestions, index: int, arms: Mapping[str, ArmAttention]) -> Figure:
    """One question at every layer of every arm."""
    panels = layer_panels(questions, index, arms)
    layers = len(panels) // len(arms)
    columns = max(number for number in range(1, _MOST_COLUMNS + 1) if layers % number == 0)
    return overlays(
        name="attention-layers",
        title="One question at every layer",
        caption=f"{_text(questions, index)} The number is the decoder layer; colors as above.{_outline_words(panels)}",
        alt=f"Attention of {', '.join(arms)} over one image at each decoder layer.",
        panels=panels,
        columns=columns if columns >= _MOST_COLUMNS // 2 else _MOST_COLUMNS,
        panel_width=1.2,
        saturation=_SATURATION,
    )


def card_figure(
    questions: AskedQuestions,
    index: int,
    name: str,
    arms: Mapping[str, ArmAttention],
    teacher: TeacherMaps | None,
    layer: int,
) -> Figure:
    """The picture of one question."""
    panels = question_panels(questions, index, arms, teacher, layer)
    return overlays(
        name=name,
        title=_text(questions, index),
        caption=f"Question {questions.frame['question_id'][index]}.",
        alt=f"The image{_outline_words(panels).rstrip('.').lower()}; attention over it of "
        f"{'the teacher and ' if teacher is not None else ''}{', '.join(arms)}, at layer {layer} and in the mean over "
        "layers.",
        panels=panels,
        saturation=_SATURATION,
    )


def outlines_of(questions: AskedQuestions, index: int) -> tuple[Outline, ...]:
    """The regions that a question is about: their masks where known, else their boxes."""
    return tuple(_outlines(questions, index))


def _outlines(questions: AskedQuestions, index: int) -> Iterator[Outline]:
    for region in questions.regions[index]:
        if region.mask is not None:
            yield Outline(name=region.name, mask=questions.mask(index, region).numpy())
        else:
            yield Outline(name=region.name, box=region.box)


def _outline_words(panels: Sequence[Overlay]) -> str:
    names = sorted({outline.name for panel in panels for outline in panel.outlines})
    if not names:
        return ""
    listed = ", ".join(names[:4]) + (" and others" if len(names) > 4 else "")
    return f" Outlined: {listed}."


def _text(questions: AskedQuestions, index: int) -> str:
    text: str = questions.frame["question"][index]
    return " ".join(text.split())

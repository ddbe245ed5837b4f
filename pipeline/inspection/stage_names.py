"""Stages in words and on an axis."""

from typing import Final

from ...student.inspection.token_capture import PIXELS, PROJECTOR, TEACHER, TOWER

AXIS: Final = "decoder layer whose input is read (-1: tower, 0: projector)"


def stage_title(stage: str) -> str:
    """A stage as in a sentence.

    >>> from medalign.pipeline.inspection.stage_names import stage_title
    >>> stage_title("layer 3"), stage_title("teacher")
    ('input of layer 3', "teacher's E_v")
    """
    fixed = {TEACHER: "teacher's E_v", PROJECTOR: "projector's output", TOWER: "tower", PIXELS: "pixels"}
    return fixed.get(stage) or f"input of {stage}"


def stage_place(stage: str) -> int:
    """The place of a student's stage on the axis of layers; the projector's output is the input of layer 0."""
    if stage in (TOWER, PROJECTOR):
        return -1 if stage == TOWER else 0
    return int(stage.removeprefix("layer "))

"""Phantoms: drawn test objects in the manner of radiographs and CT slices, with exact masks and texts.

They stand in for patients wherever a run must work anywhere: the demo, the tests, a first try. Nothing about them
comes from a patient, and no claim about patients can be made from them.
"""

from .draw import draw_phantom
from .phantom import ORGAN_LABELS, Lesion, OrganLook, Phantom

__all__ = ["ORGAN_LABELS", "Lesion", "OrganLook", "Phantom", "draw_phantom"]

"""Options of stage one, written flat."""

from typing import Any

from medalign.teacher_cache.extraction.extraction_options import ExtractionOptions
from medalign.teacher_cache.workers.engines import Crew

CREW = ("engine", "workers", "decode_workers", "decode_in")


def options_of(**settings: Any) -> ExtractionOptions:
    """Options of which those of the crew stand beside the others."""
    crew = Crew(**{name: settings.pop(name) for name in CREW if name in settings})
    return ExtractionOptions(crew=crew, **settings)

"""Entities and relations of a report, as in RadGraph's packages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .archive import Archive, load_archive

FIRST_RELEASE = ("None", "radgraph")
"""Names of the annotation in archives of RadGraph 1.0, from PhysioNet and from the radgraph package."""

# RadGraph 1.0 splits words at these; in the brackets, "," to "," is a range of one character.
_FIRST_BORDER = re.compile(r"(?<! )(?=[/,-,:,.,!?()])|(?<=[/,-,:,.,!?()])(?! )")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entity:
    """A span of words with a label, and its relations."""

    words: str
    label: str
    relations: tuple[tuple[str, int], ...]
    """Label of each relation, and the index of its target entity."""


class RadGraph:
    """A RadGraph model with a cache of annotated reports."""

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        """Load an unpacked archive.

        Raises:
            InputError: it is incomplete or does not match.
        """
        self._archive: Archive = load_archive(folder, device)
        self._seen: dict[str, tuple[Entity, ...]] = {}

    def annotate(self, report: str) -> tuple[Entity, ...]:
        """Entities of a report in the order of their first words; none for an empty report."""
        if report not in self._seen:
            words = split_words(report, first_release=self._archive.dataset in FIRST_RELEASE)
            self._seen[report] = self._annotate(words) if words else ()
        return self._seen[report]

    @torch.no_grad()
    def _annotate(self, words: list[str]) -> tuple[Entity, ...]:
        archive, model = self._archive, self._archive.spans
        states = archive.embed(words)
        spans_S2 = model.spans(len(words)).to(states.device)
        spans_SE = model.embed(states, spans_S2)
        labels = model.entities(spans_SE)
        entities = (labels >= 0).nonzero().flatten().tolist()
        kept, scores = model.kept(spans_SE, len(words))
        relations = self._relations(entities, kept.tolist(), model.relations(spans_SE[kept], scores))
        return tuple(
            Entity(
                words=" ".join(words[int(spans_S2[span, 0]) : int(spans_S2[span, 1]) + 1]),
                label=archive.entity_labels[int(labels[span])],
                relations=tuple(relations[number]),
            )
            for number, span in enumerate(entities)
        )

    def _relations(
        self, entities: Sequence[int], kept: Sequence[int], labels: torch.Tensor
    ) -> list[list[tuple[str, int]]]:
        """Relations of each entity, in the order of their targets; relations of other spans are ignored."""
        number = {span: index for index, span in enumerate(entities)}
        relations: list[list[tuple[str, int]]] = [[] for _ in entities]
        for first, second in (labels >= 0).nonzero().tolist():
            source, target = number.get(kept[first]), number.get(kept[second])
            if source is not None and target is not None:
                relations[source].append((self._archive.relation_labels[int(labels[first, second])], target))
        return relations


def split_words(report: str, *, first_release: bool) -> list[str]:
    """Split a report into words with the rule that the model was trained with; the releases have different rules."""
    if first_release:
        return _FIRST_BORDER.sub(" ", report).split()
    return _split_like_xl(report)


def _split_like_xl(report: str) -> list[str]:
    """RadGraph-XL's rule: runs of letters and digits, and runs of punctuation, some of which are split again."""
    text = report.replace("\\n", "  ").replace("\\f", "  ").replace("\\u2122", "      ").replace('\\"', "``")
    joined = " ".join(re.findall(r"\w+|[^\w\s]+", text))
    for together, parted in ((").", ") ."), ("%.", "% ."), (".'", ". '"), ("%,", "% ,"), ("%)", "% )")):
        joined = joined.replace(together, parted)
    return joined.split()

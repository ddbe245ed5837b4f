"""F1 scores of RadGraph's annotations: the paper's, its two components, and that of the radgraph package."""

from collections.abc import Callable, Hashable, Sequence

from ...result import MetricResult, mean_result
from .annotate import Entity, RadGraph

Annotation = Sequence[Entity]
PairScore = Callable[[Annotation, Annotation], float]


def radgraph_result(
    name: str, radgraph: RadGraph, predictions: Sequence[str], references: Sequence[str], *, score: PairScore
) -> MetricResult:
    """Mean of one score over pairs of reports."""
    pairs = zip(predictions, references, strict=True)
    return mean_result(
        name, [score(radgraph.annotate(predicted), radgraph.annotate(expected)) for predicted, expected in pairs]
    )


def entity_f1(predicted: Annotation, expected: Annotation) -> float:
    """F1 of distinct (words, label); 0 if either report has none."""
    return _set_f1(_plain(predicted), _plain(expected))


def relation_f1(predicted: Annotation, expected: Annotation) -> float:
    """F1 of distinct (entity, entity, relation), with entities as (words, label); 0 if either report has none."""
    return _set_f1(_relations(predicted), _relations(expected))


def paper_f1(predicted: Annotation, expected: Annotation) -> float:
    """Mean of the entities' and the relations' F1: CXR-Report-Metric's `radgraph_combined` (Yu et al. 2023)."""
    return (entity_f1(predicted, expected) + relation_f1(predicted, expected)) / 2


def partial_f1(predicted: Annotation, expected: Annotation) -> float:
    """F1 of distinct (words, label, has a relation): RG_ER of the radgraph package (Delbrouck et al. 2022)."""
    return _set_f1(_flagged(predicted), _flagged(expected))


def _plain(annotation: Annotation) -> set[Hashable]:
    return {(entity.words, entity.label) for entity in annotation}


def _flagged(annotation: Annotation) -> set[Hashable]:
    return {(entity.words, entity.label, bool(entity.relations)) for entity in annotation}


def _relations(annotation: Annotation) -> set[Hashable]:
    return {
        ((entity.words, entity.label), (annotation[target].words, annotation[target].label), relation)
        for entity in annotation
        for relation, target in entity.relations
    }


def _set_f1(predicted: set[Hashable], expected: set[Hashable]) -> float:
    total = len(predicted) + len(expected)
    return 2 * len(predicted & expected) / total if predicted and expected else 0.0

"""Findings about image tokens as tables for Parquet and values for inspection.json."""

from typing import Any

import polars as pl

from .inspected_images import InspectedImages
from .probes.probe_figures import probe_table
from .token_findings import TokenFindings
from .tokens.agreement_curves import agreement_table
from .tokens.token_study import cluster_table, point_table


def token_tables(tokens: TokenFindings, inspected: InspectedImages) -> dict[str, pl.DataFrame]:
    """Tables by the name of their file without suffix; only those with rows."""
    tables: dict[str, pl.DataFrame] = {}
    if tokens.scores:
        tables["probes"] = probe_table(tokens.scores, tokens.seed)
    if tokens.clusters and tokens.named is not None:
        tables["clusters"] = cluster_table(tokens.clusters, tokens.projections)
        images = inspected.images.frame["image_hash"].to_list()
        tables["tokens"] = point_table(tokens.named, tokens.projections, images)
    if tokens.agreements:
        tables["agreement"] = agreement_table(tokens.agreements)
    return tables


def token_values(tokens: TokenFindings) -> dict[str, Any]:
    """Verdicts, probes, clusters and agreement for inspection.json."""
    values: dict[str, Any] = {
        "labels": {"kind": tokens.cells.kind, "names": list(tokens.cells.names)},
        "probes": [
            {"arm": arm, **verdict.record(), "stages": _stages(tokens, arm, family)}
            for (arm, family), verdict in tokens.verdicts.items()
        ],
    }
    if tokens.clusters:
        values["clusters"] = cluster_table(tokens.clusters, tokens.projections).to_dicts()
    if tokens.agreements:
        values["agreement"] = agreement_table(tokens.agreements).to_dicts()
    return values


def _stages(tokens: TokenFindings, arm: str, family: str) -> dict[str, float]:
    scores = tokens.scores[arm, family]
    return dict(zip(scores.stages, map(float, scores.values()), strict=True)) | {scores.family.floor: scores.floor()}

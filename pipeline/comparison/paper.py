"""The paper's own figures (paper.yaml), to stand beside ours."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

MEDALIGN = "medalign"
REPORT_METRICS = {
    "bleu_paper": "BLEU",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "bertscore": "BERTScore",
    "chexbert_cosine": "CheXbert",
    "radgraph_paper": "RadGraph",
    "ratescore": "RaTEScore",
}
"""Our names of the metrics that are computed as the paper's are -> the paper's names."""
ANSWER_METRICS = {"open_reference": "open", "closed_reference": "closed", "choice_reference": "closed"}


def paper_figure(student: str, data: str, metric: str, adapter: str | None, method: str) -> float | None:
    """A figure of the paper in percent; `None` where it has none.

    `adapter` is `LoRA` or `MEDALIGN`: the paper decodes the first with every method, the second with beams alone.
    """
    tables = _tables()
    if metric in REPORT_METRICS:
        found = tables["reports"].get(student, {}).get(data, {}).get(REPORT_METRICS[metric])
    else:
        found = tables["vqa"].get(student, {}).get(data, {}).get(ANSWER_METRICS.get(metric, ""))
    column = {"LoRA": method, "MEDALIGN": MEDALIGN if method == "beam" else None}.get(adapter or "")
    if found is None or column not in tables["methods"]:
        return None
    return float(found[tables["methods"].index(column)])


def paper_source() -> str:
    """How to cite it."""
    return str(_tables()["source"])


@cache
def _tables() -> dict[str, Any]:
    text = (files(__package__) / "paper.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values

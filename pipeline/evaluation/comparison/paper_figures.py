"""The numbers published in the paper (paper.yaml), for comparison with ours."""

from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from ....student.decoding import Decoding, choose_decoding

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
"""Our names of metrics that are computed as in the paper -> the paper's names."""
ANSWER_METRICS = {"open_reference": "open", "closed_reference": "closed", "choice_reference": "closed"}


def paper_figure(student: str, data: str, metric: str, adapter: str | None, method: str) -> float | None:
    """A number of the paper in percent; `None` if it has none.

    `adapter` is `LoRA` or `MEDALIGN`: the paper uses every decoding with the first, but only beams with the second.
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


def other_settings(student: str, decoding: Decoding) -> dict[str, tuple[Any, Any]]:
    """Settings that differ from those of the paper's code for this student: name -> (ours, the paper's).

    Seeds are not compared; empty for a student that is not in the paper.
    """
    alike: list[dict[str, Any]] = _tables()["settings"].get(student, {}).get(decoding.name, [{}])
    return min((_differing(decoding, settings) for settings in alike), key=len)


def _differing(decoding: Decoding, settings: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    paper = choose_decoding(decoding.name, settings, max_new_tokens=decoding.max_new_tokens).settings
    ours, theirs = asdict(decoding.settings), asdict(paper)
    return {name: (ours[name], theirs[name]) for name in ours if name != "seed" and ours[name] != theirs[name]}


def paper_source() -> str:
    """How to cite it."""
    return str(_tables()["source"])


@cache
def _tables() -> dict[str, Any]:
    text = (files(__package__) / "paper.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values

"""The paper's figures as they were typed."""

from importlib.resources import files

import pytest
import yaml
from medalign.pipeline.comparison.paper import REPORT_METRICS, paper_figure, paper_source
from medalign.student.metrics.reports.catalogue import report_metrics

LLAVA, HUATUO = "LLaVA-Med-1.5", "HuatuoGPT-Vision-7B"
TABLES = yaml.safe_load((files("medalign.pipeline.comparison") / "paper.yaml").read_text())


def rows():
    for section in ("reports", "vqa"):
        for student, data in TABLES[section].items():
            for name, metrics in data.items():
                for metric, figures in metrics.items():
                    yield (section, student, name, metric), figures


@pytest.mark.parametrize(
    ("student", "data", "metric", "beam", "medalign"),
    [
        (LLAVA, "SLAKE", "open_reference", 83.27, 84.85),
        (LLAVA, "SLAKE", "closed_reference", 88.45, 89.01),
        (LLAVA, "VQA-RAD", "open_reference", 36.95, 39.62),
        (LLAVA, "IU-Xray", "radgraph_paper", 22.43, 23.29),
        (LLAVA, "IU-Xray", "ratescore", 59.65, 59.99),
        (LLAVA, "MIMIC-CXR", "radgraph_paper", 9.91, 10.92),
        (HUATUO, "SLAKE", "open_reference", 86.03, 86.85),
        (HUATUO, "SLAKE", "closed_reference", 90.14, 92.39),
        (HUATUO, "VQA-RAD", "closed_reference", 76.77, 78.74),
        (HUATUO, "IU-Xray", "radgraph_paper", 22.47, 23.51),
    ],
)
def test_figures_that_were_read_independently(student, data, metric, beam, medalign):
    assert paper_figure(student, data, metric, "LoRA", "beam") == beam
    assert paper_figure(student, data, metric, "MEDALIGN", "beam") == medalign


def test_every_row_is_whole():
    found = dict(rows())
    assert sum(map(len, found.values())) == 484
    assert all(len(figures) == len(TABLES["methods"]) == 11 for figures in found.values())
    assert len(found) == 2 * 2 * len(REPORT_METRICS) + 2 * 8
    assert "CC BY 4.0" in paper_source()


def test_vcd_and_damro_are_the_same_rows_where_the_paper_prints_them_so():
    """They never saw their negative images: identical in Tables 1 and 3, not in Table 2."""
    vcd, damro = TABLES["methods"].index("vcd"), TABLES["methods"].index("damro")
    differ = {key[:2] for key, figures in rows() if figures[vcd] != figures[damro]}
    assert differ == {("reports", LLAVA)}


def test_our_names_of_its_metrics_are_metrics_that_there_are():
    assert {metric.name for metric in report_metrics({})} >= REPORT_METRICS.keys()


def test_what_the_paper_does_not_have():
    assert paper_figure(LLAVA, "SLAKE", "open_strict", "LoRA", "beam") is None
    assert paper_figure(LLAVA, "SLAKE", "open_reference", "LoRA", "second") is None
    assert paper_figure(LLAVA, "SLAKE", "open_reference", "MEDALIGN", "vcd") is None
    assert paper_figure(LLAVA, "SLAKE", "open_reference", None, "beam") is None
    assert paper_figure(LLAVA, "IU-Xray", "open_reference", "LoRA", "beam") is None
    assert paper_figure("phantom", "SLAKE", "open_reference", "LoRA", "beam") is None
    assert paper_figure(HUATUO, "OmniMedVQA", "choice_reference", "LoRA", "m3id") == 91.52

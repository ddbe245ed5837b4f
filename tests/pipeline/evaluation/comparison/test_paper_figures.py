"""The paper's figures as they were typed."""

from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from medalign.pipeline.evaluation.comparison.cells import decoding_for
from medalign.pipeline.evaluation.comparison.paper_figures import (
    REPORT_METRICS,
    other_settings,
    paper_figure,
    paper_source,
)
from medalign.pipeline.evaluation.comparison.spec import load_comparison
from medalign.student.decoding import choose_decoding
from medalign.student.metrics.reports.catalog import report_metrics

LLAVA, HUATUO = "LLaVA-Med-1.5", "HuatuoGPT-Vision-7B"
TABLES = yaml.safe_load((files("medalign.pipeline.evaluation.comparison") / "paper.yaml").read_text())


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


SAMPLED = {"num_beams": 1, "temperature": 1.0, "top_p": 1.0}
GREEDY = {"num_beams": 1, "temperature": 0.0}
RUN = {
    "greedy": {},
    "beam": {"num_beams": 5},
    "nucleus": {"temperature": 1.0, "top_p": 0.9},
    "vcd": {"alpha": 1.0, "beta": 0.1, "noise_step": 500, **SAMPLED},
    "dola": {"layers": (0, 2, 4, 6, 8, 10, 12, 14), "relative_top": 0.1, **GREEDY},
    "avisc": {"alpha": 1.0, "beta": 0.1, "layer_gamma": 0.5, "lamb": 1.0, **SAMPLED},
    "damro": {"alpha": 0.5, "beta": 0.1, **SAMPLED},
    "pai": {"alpha": 0.2, "guidance": 1.1, "first_layer": 2, **GREEDY},
}
"""The calls of `generate` in eval/model_vqa.py of both students (github.com/Aofei-Chang/MedAlign, commit fbefd17)."""
RUN_WITH = {
    LLAVA: {"opera": {"scale_factor": 25, "threshold": 25}, "m3id": SAMPLED},
    HUATUO: {"opera": {"scale_factor": 50, "threshold": 15}, "m3id": SAMPLED | {"temperature": 0.7}},
}
ALWAYS = {"opera": {"num_beams": 5, "num_candidates": 5, "penalty_weight": 1}, "m3id": {"decay": 0.02, "beta": 0.1}}


def test_the_papers_configuration_runs_what_its_evaluation_code_ran():
    spec = load_comparison(Path(__file__).parents[4] / "configs/comparisons/paper-vqa.yaml")
    assert [item.method for item in spec.decodings] == TABLES["methods"][:-1]
    for student in spec.students:
        for item in spec.decodings:
            found = decoding_for(spec, item.name, student.name, "SLAKE", 0)
            for key, value in {
                **RUN.get(item.name, {}),
                **RUN_WITH[student.paper].get(item.name, {}),
                **ALWAYS.get(item.name, {}),
            }.items():
                assert getattr(found.settings, key) == value, (student.name, item.name, key)
            assert other_settings(student.paper, found) == {}


def ours(name, **settings):
    return choose_decoding(name, settings, max_new_tokens=16)


def test_settings_that_differ_from_the_papers_are_named():
    assert other_settings(LLAVA, ours("opera")) == {"scale_factor": (50.0, 25.0), "threshold": (15, 25)}
    assert other_settings(HUATUO, ours("opera")) == {}
    assert other_settings(HUATUO, ours("damro", alpha=2.0, temperature=1.0)) == {"alpha": (2.0, 0.5)}
    assert other_settings(HUATUO, ours("vcd", temperature=1.0, seed=9)) == {}
    assert other_settings(LLAVA, ours("dola")) == {}, "the even layers below 16 of 32"
    assert other_settings(HUATUO, ours("dola")).keys() == {"layers"}, "0 to 12 of 28"
    assert other_settings("phantom", ours("greedy")) == {}

"""Findings against the statistics computed by hand, and the tables made of them."""

from dataclasses import replace

import numpy as np
import pytest
from comparisons import bench_spec
from medalign.pipeline.evaluation.comparison.analysis import ScoredCell, System, analyze, costs, table_of
from medalign.pipeline.evaluation.comparison.cells import Cell
from medalign.pipeline.evaluation.comparison.render import as_latex, as_markdown
from medalign.pipeline.evaluation.comparison.result_tables import answer_grid, cell_grid, difference_grid, report_grids
from medalign.pipeline.evaluation.comparison.spec import DecodingSpec
from medalign.pipeline.evaluation.comparison.table_entries import Entry, Grid
from medalign.pipeline.evaluation.statistics import bootstrap_interval, holm, paired_difference, randomization_test
from medalign.student.metrics.result import AbsentMetric, mean_result

QUESTIONS = 120
FINISHES = {"end": 110, "length": 6, "empty": 4, "unknown": 0}
IMAGES = [f"image {number // 3}" for number in range(QUESTIONS)]


def cell(adapter, decoding, seed, data="noise"):
    return Cell(student="tiny", adapter=adapter, decoding=decoding, data=data, repeat=seed, seed=seed)


def scored(generator, level):
    """Answers that are right with a given chance: the first half open, the second closed; reports by two metrics."""
    right = (generator.random(QUESTIONS) < level).astype(float)
    half = QUESTIONS // 2
    opened = [*right[:half], *[None] * half]
    closed = [*[None] * half, *right[half:]]
    results = (
        mean_result("open_strict", opened),
        mean_result("closed_strict", closed),
        mean_result("choice_strict", [None] * QUESTIONS),
        mean_result("open_reference", opened),
        mean_result("bleu", right.tolist()),
        AbsentMetric(name="chexbert", reason="no file of CheXbert here"),
    )
    return ScoredCell(results=results, answers=QUESTIONS, seconds=12.0, forwards=360, finishes=FINISHES)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    spec = bench_spec(tmp_path_factory.mktemp("spec"), rounds=2000)
    student = spec.students[0].model_copy(update={"paper": "LLaVA-Med-1.5"})
    lora, medalign = (
        adapter.model_copy(update={"paper": name})
        for adapter, name in zip(student.adapters, ("LoRA", "MEDALIGN"), strict=True)
    )
    data = spec.data[0].model_copy(update={"paper": "SLAKE"})
    student = student.model_copy(update={"adapters": (lora, medalign)})
    return spec.model_copy(update={"students": (student,), "data": (data,)})


@pytest.fixture(scope="module")
def cells():
    generator = np.random.default_rng(0)
    levels = {("LoRA", "greedy"): 0.4, ("LoRA", "warm"): 0.45, ("MEDALIGN", "greedy"): 0.9, ("MEDALIGN", "warm"): 0.4}
    return {cell(*name, seed): scored(generator, level) for name, level in levels.items() for seed in (0, 1)}


@pytest.fixture(scope="module")
def findings(spec, cells):
    return analyze(spec, cells, {"noise": IMAGES})


def find(findings, adapter, decoding, metric):
    system = System(student="tiny", adapter=adapter, decoding=decoding)
    return next(item for item in findings if item.system == system and item.metric == metric)


def values(cells, adapter, decoding, place):
    """Mean over seeds of each question's value; nan where it is not scored."""
    parts = [cells[cell(adapter, decoding, seed)].results[place].parts for seed in (0, 1)]
    return np.mean([np.where(p[:, 1] > 0, p[:, 0], np.nan) for p in parts], axis=0)


def test_a_finding_is_the_mean_over_seeds_with_its_interval(spec, cells, findings):
    found = find(findings, "MEDALIGN", "greedy", "open_strict")
    alone = [cells[cell("MEDALIGN", "greedy", seed)].results[0].value for seed in (0, 1)]
    assert found.value == pytest.approx(np.mean(alone))
    assert found.spread == pytest.approx(np.std(alone, ddof=1))
    assert (found.questions, found.repeats) == (60, 2)
    pooled = mean_result("open", values(cells, "MEDALIGN", "greedy", 0).tolist())
    expected = bootstrap_interval(pooled, IMAGES, seed=spec.statistics_seed, resamples=spec.resamples)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_difference_is_paired_by_question(spec, cells, findings):
    before, after = (values(cells, adapter, "greedy", 0) for adapter in ("LoRA", "MEDALIGN"))
    found = find(findings, "MEDALIGN", "greedy", "open_strict")
    expected = paired_difference(before, after, IMAGES, seed=spec.statistics_seed, resamples=spec.resamples)
    assert found.difference == pytest.approx(expected.mean)
    assert (found.difference_low, found.difference_high) == pytest.approx((expected.low, expected.high))
    sides = [mean_result("open", side.tolist()) for side in (before, after)]
    assert found.p == randomization_test(*sides, IMAGES, seed=spec.statistics_seed, rounds=spec.rounds)


def test_holm_goes_over_the_comparisons_of_one_table(findings):
    for table, tests in (("strict", 6), ("reference", 3), ("reports", 3)):
        family = [item for item in findings if item.table == table and item.p is not None]
        assert len(family) == tests
        assert [item.p_holm for item in family] == holm([item.p for item in family])


def test_the_baseline_is_not_compared_with_itself_and_what_is_absent_has_no_number(findings):
    assert find(findings, "LoRA", "greedy", "open_strict").p is None
    absent = find(findings, "LoRA", "warm", "chexbert")
    assert absent.absent == "no file of CheXbert here"
    assert absent.value is absent.p is absent.difference is None
    assert not any(item.metric == "choice_strict" for item in findings), "nothing was asked with options"
    assert table_of("bleu") == table_of("chexbert") == "reports"


def test_costs_are_per_answer(cells):
    for cost in costs(cells):
        assert (cost.answers, cost.seconds, cost.forwards) == (2 * QUESTIONS, pytest.approx(0.1), 3.0)


def test_answers_stand_in_the_papers_layout(spec, cells, findings):
    grid = answer_grid(spec, "tiny", "strict", findings, costs(cells))
    assert grid.groups == (("", 2), ("noise", 2), ("cost per answer", 2))
    assert grid.header == ("adapter", "decoding", "open", "closed", "seconds", "passes")
    assert [row[0].text + " " + row[1].text for row in grid.rows] == [
        "LoRA greedy",
        "LoRA warm",
        "MEDALIGN greedy",
        "MEDALIGN warm",
    ]
    best = grid.rows[2][2]
    assert best.best
    assert best.starred
    assert sum(row[2].best for row in grid.rows) == 1
    assert not grid.rows[0][2].starred
    assert grid.rows[0][4].text == "0.1"
    assert "Holm's correction for the 6 comparisons" in " ".join(grid.notes)
    assert answer_grid(spec, "other", "strict", findings, costs(cells)) is None


def test_the_papers_figures_stand_beside_ours(spec, cells, findings):
    grid = answer_grid(spec, "tiny", "reference", findings, costs(cells))
    assert [row[2].paper for row in grid.rows] == ["82.97", "82.75", "", ""], "MEDALIGN was decoded by beams"
    assert "arXiv:2512.18554" in " ".join(grid.notes)
    strict = answer_grid(spec, "tiny", "strict", findings, costs(cells))
    assert not any(entry.paper for row in strict.rows for entry in row)


def test_a_figure_of_the_papers_is_marked_where_its_method_had_other_settings(spec, findings, cells):
    beam = DecodingSpec(name="warm", method="beam", settings={"num_beams": 3})
    told = spec.model_copy(update={"decodings": (spec.decodings[0], beam)})
    grid = answer_grid(told, "tiny", "reference", findings, costs(cells))
    marks = [(row[1].text, entry.paper, entry.other_settings) for row in grid.rows for entry in row if entry.paper]
    assert marks == [("greedy", "82.97", False), ("warm", "83.27", True), ("warm", "84.85", True)]
    assert any("other settings for this method: warm (num_beams 3, paper 5)" in note for note in grid.notes)
    assert "(83.27\N{DAGGER})" in as_markdown("T", [], [grid])
    assert r"(83.27\textdagger{})" in as_latex([grid])
    assert "\N{DAGGER}" not in as_latex([grid])


def test_reports_have_metrics_in_rows_and_say_what_is_absent(spec, cells, findings):
    grids = report_grids(spec, "tiny", findings, costs(cells))
    assert [grid.title.split(":")[0] for grid in grids] == ["tiny, LoRA", "tiny, MEDALIGN"]
    assert grids[0].header == ("data", "metric", "greedy", "warm")
    assert [row[1].text for row in grids[0].rows] == ["bleu", "chexbert", "seconds", "passes"]
    assert [entry.text for entry in grids[0].rows[1][2:]] == ["absent", "absent"]
    assert "chexbert is absent: no file of CheXbert here" in grids[0].notes
    best = [entry.best for grid in grids for entry in grid.rows[0][2:]]
    assert best == [False, False, True, False], "the best of all, not of each adapter"


def test_metrics_that_lack_the_same_file_share_a_note(spec, cells, findings):
    """Otherwise, a line for each metric hides the rows that have numbers."""
    names = [f"chexbert_{index}" for index in range(3)]
    reasons = [("chexbert_0", "no CheXbert"), ("meteor", "no WordNet"), ("chexbert_1", "no CheXbert")]
    lacking = find(findings, "LoRA", "warm", "chexbert")
    more = [replace(lacking, metric=name, absent=reason) for name, reason in [*reasons, (names[2], "no CheXbert")]]
    notes = report_grids(spec, "tiny", [*findings, *more], costs(cells))[0].notes
    assert [note for note in notes if "absent" in note] == [
        "chexbert is absent: no file of CheXbert here",
        f"3 metrics are absent ({', '.join(names)}): no CheXbert",
        "meteor is absent: no WordNet",
    ]


def test_differences_and_cells_are_listed(spec, cells, findings):
    grid = difference_grid(spec, "tiny", "strict", findings)
    assert len(grid.rows) == 6
    assert difference_grid(spec, "tiny", "strict", [replace(item, difference=None) for item in findings]) is None
    listed = cell_grid(cells)
    assert len(listed.rows) == 8
    assert all(len(row) == len(listed.header) for row in listed.rows)
    assert "choice_strict" not in listed.header


@pytest.fixture
def grid():
    rows = (
        (Entry(text="a_b|c"), Entry(text="12.50", best=True, starred=True, interval="[1.0, 20.0]", paper="11.00")),
        (Entry(text="50 %"), Entry(text="absent")),
    )
    return Grid(
        title="T & U", groups=(("", 1), ("SLAKE", 1)), header=("method", "open"), rows=rows, notes=("p < 0.05",)
    )


def test_markdown(grid):
    text = as_markdown("Title", ["Said first."], [grid])
    assert text.startswith("# Title\n\nSaid first.\n\n## T & U\n\n| method | SLAKE: open |\n| --- | ---: |\n")
    assert "| a_b\\|c | **12.50**\\* [1.0, 20.0] (11.00) |" in text
    assert text.endswith("- p \\< 0.05\n")


def test_latex(grid):
    text = as_latex([grid])
    assert r"a\_b|c & \textbf{12.50}$^{*}$ {\tiny [1.0, 20.0]} (11.00) \\" in text
    assert r"50 \% & absent \\" in text
    assert r"\multicolumn{1}{c}{} & \multicolumn{1}{c}{SLAKE} \\" in text
    assert r"\begin{tabular}{lr}" in text
    assert r"\caption{T \& U. p \textless{} 0.05}" in text
    assert text.count("{") == text.count("}")


def test_a_zero_is_bold_where_it_is_the_best(spec):
    """0.00 is a value: beside a single 0.00 nothing is compared, among several the highest is bold, zeros included."""
    zero = np.zeros(QUESTIONS).tolist()
    results = (mean_result("open_strict", zero),)
    level = ScoredCell(results=results, answers=QUESTIONS, seconds=1.0, forwards=1, finishes=FINISHES)
    some = replace(level, results=(mean_result("open_strict", [1.0, *zero[1:]]),))
    images = {"noise": IMAGES}
    for other, bold in ((some, [False, True]), (level, [True, True])):
        cells = {cell("LoRA", "greedy", 0): level, cell("MEDALIGN", "greedy", 0): other}
        grid = answer_grid(spec, "tiny", "strict", analyze(spec, cells, images), costs(cells))
        assert [row[2].best for row in grid.rows] == bold
        assert grid.rows[0][2].text == "0.00"


def test_cells_show_their_empty_and_cut_off_answers():
    known = ScoredCell(results=(), answers=QUESTIONS, seconds=1.0, forwards=1, finishes=FINISHES)
    unknown = replace(known, finishes={"end": 0, "length": 0, "empty": 0, "unknown": QUESTIONS})
    grid = cell_grid({cell("lora", "greedy", 0): known, cell("lora", "greedy", 1): unknown})
    assert grid.header[8:10] == ("empty", "cut off")
    assert [[entry.text for entry in row[8:10]] for row in grid.rows] == [["4", "6"], ["-", "-"]]


@pytest.mark.parametrize(("values", "low", "high"), [([-0.9, 0.9], -1.0, 1.0), ([0.0, 0.9], 0.0, 1.0)])
def test_intervals_stay_in_the_range_of_the_metric(spec, values, low, high):
    """Two images give intervals wider than any metric; a metric without negative values has none in its interval."""
    result = ScoredCell(
        results=(mean_result("bleu", values),), answers=2, seconds=1.0, forwards=2, finishes=dict.fromkeys(FINISHES, 0)
    )
    cells = {cell(spec.baseline.adapter, spec.baseline.decoding, 0): result}
    (finding,) = analyze(spec, cells, {"noise": ["a", "b"]})
    unlimited = bootstrap_interval(result.results[0], ["a", "b"], seed=spec.statistics_seed, resamples=spec.resamples)
    assert unlimited.low < low
    assert unlimited.high > high
    assert (finding.low, finding.high) == (low, high)


def lone(results):
    return ScoredCell(results=results, answers=4, seconds=1.0, forwards=4, finishes=dict.fromkeys(FINISHES, 0))


def test_only_images_with_a_scored_question_count(spec):
    result = lone((mean_result("open_strict", [1.0, 0.0, None, 1.0]),))
    cells = {cell(spec.baseline.adapter, spec.baseline.decoding, 0): result}
    (finding,) = analyze(spec, cells, {"noise": ["a", "a", "b", "c"]})
    assert (finding.questions, finding.images) == (3, 2)


@pytest.mark.parametrize("absent", ["LoRA", "MEDALIGN"])
def test_a_metric_that_one_side_lacks_is_not_compared(spec, absent):
    whole = lone((mean_result("bleu", [0.1, 0.2, 0.3, 0.4]),))
    without = lone((AbsentMetric(name="bleu", reason="no file"),))
    cells = {
        cell(adapter, "greedy", seed): without if adapter == absent and seed else whole
        for adapter in ("LoRA", "MEDALIGN")
        for seed in (0, 1)
    }
    found = find(analyze(spec, cells, {"noise": ["a", "b", "c", "d"]}), "MEDALIGN", "greedy", "bleu")
    assert (found.difference, found.p) == (None, None)


def test_the_note_on_few_images_says_which_metric_has_how_many(spec, cells, findings):
    images = {"open_strict": 8, "closed_strict": 7}
    few = [replace(finding, images=images.get(finding.metric, 12)) for finding in findings]
    assert "(noise open 8, closed 7)" in " ".join(answer_grid(spec, "tiny", "strict", few, costs(cells)).notes)
    alike = [replace(finding, images=8) for finding in findings]
    assert "(noise 8)" in " ".join(answer_grid(spec, "tiny", "strict", alike, costs(cells)).notes)


def test_an_interval_without_width_is_not_shown(spec, cells, findings):
    sure = replace(find(findings, "LoRA", "greedy", "open_strict"), low=0.5, high=0.5, value=0.5)
    others = [finding for finding in findings if (finding.system, finding.metric) != (sure.system, sure.metric)]
    grid = answer_grid(spec, "tiny", "strict", [sure, *others], costs(cells))
    assert [entry.interval == "" for entry in grid.rows[0][2:4]] == [True, False]
    assert "Scores without brackets: all images have the same value" in " ".join(grid.notes)
    assert "all images have the same value" not in " ".join(
        answer_grid(spec, "tiny", "strict", findings, costs(cells)).notes
    )

"""The page of a comparison: its verdict is that of the corrected tests, and its figures have the saved values."""

import pytest
from medalign.errors import InputError
from medalign.pipeline.reports.page import render_page
from medalign.pipeline.reports.runs.comparison_page import comparison_page
from run_folders import text_of, write_compared


def system(adapter, decoding, metric, value, gap=None, p_holm=None, **more):
    """A finding with an interval of 4 points around its value and its difference."""
    found = {"adapter": adapter, "decoding": decoding, "metric": metric, "value": value, "p_holm": p_holm, "p": p_holm}
    found |= {"low": value - 0.02, "high": value + 0.02, "difference": gap}
    return found | ({} if gap is None else {"difference_low": gap - 0.02, "difference_high": gap + 0.02}) | more


BASELINE = [system("LoRA", "greedy", "open_strict", 0.5), system("LoRA", "greedy", "closed_strict", 0.6)]


def test_without_a_significant_difference_the_lead_says_so(tmp_path):
    """The interval alone excludes 0, but the corrected test does not."""
    others = [
        system("MEDALIGN", "greedy", "open_strict", 0.53, 0.03, 0.3),
        system("MEDALIGN", "greedy", "closed_strict", 0.55, -0.05, 0.08),
    ]
    page = comparison_page(write_compared(tmp_path / "run", [*BASELINE, *others]))
    assert page.lead.startswith("No significant difference from LoRA, greedy in 2 comparisons")
    assert "MEDALIGN, greedy: closed (noise) -5.0 points, -7.0 to -3.0" in page.lead
    assert "-7.0 to -3.0, p = 0.08 after the correction. Rely on this p" in page.lead
    assert page.facts["cells and questions"] == "2 cells."
    assert page.state == "neutral"
    differences = next(figure for figure in page.figures if figure.name == "differences-tiny-strict")
    assert "no difference is significant" in differences.alt
    assert not differences.settings["from_zero"]


@pytest.mark.parametrize(
    ("gaps", "said", "state"),
    [
        ((0.1, 0.01), ("better: MEDALIGN, greedy: open (noise) +10.0 points, +8.0 to +12.0",), "good"),
        ((-0.1, 0.01), ("worse: MEDALIGN, greedy: open (noise) -10.0 points",), "bad"),
        ((0.1, -0.2), ("better: MEDALIGN, greedy: open", "worse: MEDALIGN, greedy: closed"), "neutral"),
    ],
)
def test_the_lead_names_what_is_better_and_what_is_worse(tmp_path, gaps, said, state):
    others = [
        system("MEDALIGN", "greedy", metric, 0.5 + gap, gap, 0.001 if abs(gap) > 0.05 else 0.9)
        for metric, gap in zip(("open_strict", "closed_strict"), gaps, strict=True)
    ]
    page = comparison_page(write_compared(tmp_path / "run", [*BASELINE, *others]))
    assert all(f"significantly {part}" in page.lead for part in said)
    assert ("No significant difference in the other 1." in page.lead) == (len(said) == 1)
    assert page.state == state


def test_figures_have_every_saved_value(tmp_path):
    others = [
        system("LoRA", "beam", "open_strict", 0.4, -0.1, 0.5),
        system("MEDALIGN", "greedy", "open_strict", 0.7, 0.2, 0.001),
    ]
    page = comparison_page(write_compared(tmp_path / "run", [*BASELINE, *others]))
    tables = {figure.name: figure.table for figure in page.figures}
    opened = tables["values-tiny-strict"].filter(tables["values-tiny-strict"]["panel"] == "open (noise)")
    assert list(opened.select("group", "series", "value").iter_rows()) == [
        ("greedy", "LoRA", 50.0),
        ("beam", "LoRA", 40.0),
        ("greedy", "MEDALIGN", 70.0),
    ]
    gaps = tables["differences-tiny-strict"]
    drawn = [("greedy", "LoRA", 0.0), ("beam", "LoRA", -10.0), ("greedy", "MEDALIGN", 20.0)]
    assert list(gaps.select("group", "series", "value").iter_rows()) == drawn
    assert gaps["low"].to_list() == [None, pytest.approx(-12), pytest.approx(18)]
    cost = tables["cost-tiny"]
    assert set(cost.filter(cost["panel"] == "seconds per answer")["value"]) == {1.0}, "the mean over both seeds"
    assert set(cost.filter(cost["panel"] == "forward passes per answer")["value"]) == {4.0}


def test_the_lead_reads_the_scores_that_were_asked_for(tmp_path):
    better = system("MEDALIGN", "greedy", "open_reference", 0.9, 0.4, 0.001)
    findings = [system("LoRA", "greedy", "open_reference", 0.5), better]
    strict = comparison_page(write_compared(tmp_path / "strict", findings))
    assert strict.lead.startswith("Nothing was compared with LoRA, greedy")
    reference = comparison_page(write_compared(tmp_path / "reference", findings, reading="reference"))
    assert "significantly better" in reference.lead


def test_students_whose_names_are_alike_have_files_of_their_own(tmp_path):
    findings = [found | {"student": name} for name in ("a b", "a-b", "\u80f8", "\u8179") for found in BASELINE]
    page = comparison_page(write_compared(tmp_path / "run", findings))
    names = [figure.name for figure in page.figures]
    assert len(set(names)) == len(names) == 8


def test_tables_and_warnings_are_on_the_page_and_only_text(tmp_path):
    entry = {
        "text": "<b>7",
        "best": True,
        "starred": True,
        "interval": "[1, 2]",
        "paper": "3.5",
        "other_settings": False,
    }
    plain = {"text": "x", "best": False, "starred": False, "interval": "", "paper": "", "other_settings": False}
    grid = {
        "title": "tiny: answers to questions, `strict` scores",
        "groups": [["", 1], ["noise", 1]],
        "header": ["adapter", "open"],
        "rows": [[plain, entry]],
        "notes": ["Percent."],
    }
    run = write_compared(tmp_path / "run", BASELINE, warnings=["two answers <i> (docs/comparison.md)"], tables=[grid])
    page = comparison_page(run)
    html = render_page(
        page, {figure.name: type("P", (), {"data": b"", "mime": "image/png"}) for figure in page.figures}
    )
    assert "<strong>&lt;b&gt;7* [1, 2] (paper 3.5)</strong>" in html
    said = text_of(html)
    assert "tiny: answers to questions, strict scores adapter noise: open x <b>7* [1, 2] (paper 3.5)" in said
    assert "two answers <i>." in said
    assert "docs/" not in said
    assert "data-use class is credentialed" in page.notice
    assert page.lead.endswith("Read the warnings first.")


def test_a_comparison_without_its_tables_says_how_to_write_them(tmp_path):
    run = write_compared(tmp_path / "run", BASELINE)
    (run / "tables.json").unlink()
    with pytest.raises(InputError, match="--reanalyze"):
        comparison_page(run)

"""A study in a few rows: the phantom study's saved results, which the demo shows, are those of the docs."""

import re
from pathlib import Path

import pytest
from medalign.pipeline.demo.demo import STUDY_FILE
from medalign.pipeline.reports.studies.primary_findings import finding_tables, finding_text
from medalign.pipeline.studies.study_claim import digest_spec
from medalign.pipeline.studies.study_spec import load_study
from medalign.student.file_errors import read_object

ROOT = Path(__file__).parents[4]
DOCS = (ROOT / "docs" / "phantom-study.md").read_text().partition("### The main study\n")[2]
SPEC = load_study(ROOT / "configs" / "study" / "phantoms.yaml")


@pytest.fixture(scope="module")
def results():
    return read_object(STUDY_FILE)


def test_the_saved_results_are_those_of_the_shipped_specification(results):
    assert results["spec_sha256"] == digest_spec(SPEC)
    assert results["shown"] == "test"
    assert results["seeds"] == list(SPEC.seeds)
    named = [(row["arm"], row["against"]) for row in results["differences"] if row["primary"]]
    assert named == [(pair.arm, pair.against) for pair in SPEC.comparisons]


def test_the_demo_and_the_docs_give_the_same_numbers(results):
    means, comparisons = finding_tables(results, "score")
    for arm, mean in means.rows:
        assert f"| {arm} | {mean} |" in DOCS
    for name, difference, word in comparisons.rows:
        (line,) = [line for line in DOCS.splitlines() if line.startswith(f"| {name} |")]
        low, high = re.findall(r"[-+]\d\.\d+", difference)[1:]
        assert difference.split()[0] in line
        assert f"[{low}, {high}]" in line
        assert word == ("better" if float(low) > 0 else "worse" if float(high) < 0 else "no significant difference")
        assert f"{name} {difference}" in finding_text(results)
    assert len(comparisons.rows) == len(SPEC.comparisons)

"""Findings of MIMIC-CXR's reports, in both routes, as the rules of its maintainers' section parser have them.

Expected findings are written by hand from those rules (MIT-LCP/mimic-cxr, txt/section_parser.py).
"""

import pytest
import release_trees as trees
from medalign.pipeline.data.importers import ImportOptions, import_mimic_cxr
from medalign.pipeline.data.importers.chest.mimic_sections import findings_of
from medalign.progress import Silent

TITLE = "                                 FINAL REPORT\n"
REPORTS = {
    "plain": (" FINDINGS:  Clear\n lungs.\n \n IMPRESSION: Normal.\n", "Clear lungs."),
    "an empty repeat": (" FINDINGS: First.\n FINDINGS:\n \n IMPRESSION: x\n", "First."),
    "the last of two": (" FINDINGS: First.\n FINDINGS: Second.\n", "Second."),
    "the examination as heading": (" CHEST, TWO VIEWS: Clear.\n IMPRESSION: x\n", "Clear."),
    "a portable film": (" PORTABLE SUPINE FILM: Tube high.\n", "Tube high."),
    "a side view": (" AP AND LATERAL: No change.\n", "No change."),
    "ribs": (" LEFT RIBS: No fracture.\n", "No fracture."),
    "a misspelling": (" FINIDNGS: Clear.\n", "Clear."),
    "the singular": (" FINDING: Clear.\n", "Clear."),
    "findings and impression are an impression": (" FINDINGS AND IMPRESSION: Clear.\n", None),
    "a chest in another section": (" CHEST HISTORY: Asthma.\n COMPARISON: CHEST.\n", None),
    "no blank before the heading": ("FINDINGS: Clear.\n IMPRESSION: x\n", None),
    "more blanks before the heading": ("   FINDINGS: Clear.\n IMPRESSION: x\n", "Clear."),
    "a colon without a blank": (" FINDINGS: Tube. NOTE:see\n LINES:ok\n IMPRESSION: x\n", "Tube. NOTE:see LINES:ok"),
    "small letters are text": (" FINDINGS: Seen:\n Lungs: clear.\n", "Seen: Lungs: clear."),
    "digits are text": (" FINDINGS: Seen.\n 2 VIEWS: clear.\n", "Seen. 2 VIEWS: clear."),
    "only an impression": (" IMPRESSION: Normal.\n", None),
    "nothing": ("", None),
    "no heading": (" Lungs are clear.\n \n Normal.\n", None),
    "Windows's line ends": (" FINDINGS: Clear\r\n lungs.\r\n IMPRESSION: x\r\n", "Clear lungs."),
}


@pytest.mark.parametrize("name", REPORTS)
def test_findings_of_a_report(name):
    report, findings = REPORTS[name]
    assert findings_of(TITLE + report.replace("\r", "")) == findings


def test_both_routes_agree(tmp_path):
    """The maintainers' table holds a section's text as it stands, stripped; reading the reports gives the same."""
    tables = {}
    for route in ("reports", "table"):
        tree = tmp_path / route
        images = [("1" + f"{number:07}", f"5{number:07}", f"image-{number}") for number in range(len(REPORTS))]
        split = [(image, study, subject, "train") for subject, study, image in images]
        tree.mkdir()
        trees.write_gzip_csv(tree / "mimic-cxr-2.0.0-split.csv.gz", trees.SPLIT_COLUMNS, split)
        lines = []
        for (subject, study, image), (report, findings) in zip(images, REPORTS.values(), strict=True):
            trees.draw(tree / "files" / trees.mimic_image(subject, study, image), 1)
            lines.append((f"s{study}", findings or ""))
            path = tree / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}.txt"
            if route == "reports":
                path.write_bytes((TITLE + report).encode())
        if route == "table":
            trees.write_gzip_csv(tree / "mimic_cxr_sectioned.csv.gz", ("study", "findings"), lines)
        tables[route] = import_mimic_cxr(tree, ImportOptions(), Silent()).frame
    assert tables["reports"].equals(tables["table"])
    assert tables["table"]["answer"].to_list() == [findings for _, findings in REPORTS.values()]

"""Metrics that use models, with small models in the published formats.

What is expected of CheXbert, BERTScore, RadGraph and RaTEScore was given by the packages' own code for these files:
data/report_scores.json.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from medalign.errors import InputError
from medalign.student.metrics.reports.bertscore import BertScore, greedy_f1
from medalign.student.metrics.reports.catalog import load_asset, report_metrics
from medalign.student.metrics.reports.chexbert import Chexbert
from medalign.student.metrics.reports.chexpert_labels import LABEL_SETS, cosine_result, label_f1_result, mean_f1
from medalign.student.metrics.reports.metric_assets import ASSETS
from medalign.student.metrics.reports.radgraph.annotate import Entity, RadGraph, split_words
from medalign.student.metrics.reports.radgraph.scores import entity_f1, paper_f1, partial_f1, relation_f1
from medalign.student.metrics.reports.ratescore import entity_matching
from medalign.student.metrics.reports.ratescore.entity_matching import Entities, found_share, labeled_runs, pair_score
from medalign.student.metrics.reports.ratescore.ratescore_metric import RateScore
from medalign.student.metrics.reports.ratescore.sentences import _pattern
from medalign.student.metrics.reports.report_metric import MissingAsset
from medalign.student.metrics.result import AbsentMetric
from report_assets import write_chexbert, write_radgraph, write_ratescore, write_roberta

TABLE = json.loads((Path(__file__).parent / "data" / "report_scores.json").read_text())
REPORTS = TABLE["reports"]
PREDICTIONS, REFERENCES = TABLE["pairs"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("assets")
    for name, write in (("chexbert", write_chexbert), ("radgraph", write_radgraph), ("ratescore", write_ratescore)):
        (root / name).mkdir()
        write(root / name)
    write_roberta(root / "roberta-large")
    return root


@pytest.fixture(scope="module")
def chexbert(folders):
    return Chexbert(folders / "chexbert")


def test_chexbert_labels_equal_f1chexberts(chexbert):
    assert [list(report.classes) for report in chexbert.read(REPORTS)] == TABLE["classes"]


@pytest.mark.parametrize("count", LABEL_SETS)
@pytest.mark.parametrize("average", ["micro", "macro"])
def test_label_f1_equals_f1chexberts(chexbert, count, average):
    result = label_f1_result(
        "f1", chexbert, PREDICTIONS, REFERENCES, conditions=LABEL_SETS[count], macro=average == "macro"
    )
    assert result.value == pytest.approx(TABLE["f1"][f"{average}{count}"], abs=1e-12)


def test_chexbert_cosine_is_the_cosine_of_embeddings(chexbert):
    result = cosine_result("cosine", chexbert, PREDICTIONS, REFERENCES)
    assert result.parts[:, 0].tolist() == pytest.approx(TABLE["cosine"], abs=1e-5)


def test_a_long_report_is_truncated_and_an_empty_one_accepted(chexbert):
    long = "mild edema . " * 400
    whole, cut, empty = chexbert.read([long, long + "no pneumothorax", ""])
    assert whole.embedding.shape == (32,)
    torch.testing.assert_close(whole.embedding, cut.embedding)
    assert len(empty.classes) == 14


def test_label_f1_of_draws():
    """Three reports and two conditions: hits, errors, and a count of reports."""
    rows = np.array([[1, 0, 0, 0, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 1]], dtype=float)
    assert mean_f1(rows[:2].sum(axis=0)) == pytest.approx((2 / 3 + 0) / 2)
    assert mean_f1(rows[2]) == 0  # a condition that nobody has is 0, as in f1chexbert
    assert np.isnan(mean_f1(np.zeros(5)))
    assert mean_f1(np.stack([rows[0], rows[1]])).shape == (2,)


def test_bertscore_equals_the_package(folders):
    found = BertScore(folders / "roberta-large").f1(PREDICTIONS, REFERENCES)
    assert found == pytest.approx(TABLE["bertscore"], abs=1e-5)
    assert len({round(value, 6) for value in found}) > 5


def test_bertscore_of_an_empty_report_is_zero(folders):
    scorer = BertScore(folders / "roberta-large")
    assert scorer.f1(["", " ", "no edema"], ["no edema", "", "no edema"]) == pytest.approx([0, 0, 1])


def test_bertscore_computed_by_hand():
    predicted = torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 0]])  # special, a, b, special
    expected = torch.tensor([[0.0, 1], [1, 1], [0, 1]])  # special, c, special
    precision = (1 + 0.5**0.5) / 2  # a is as a special token, b is nearest c
    recall = 0.5**0.5
    assert greedy_f1(predicted, expected) == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize(("dataset", "longest"), [("radgraph-xl", 512), ("radgraph-xl", 20), ("radgraph", 512)])
def test_radgraph_annotations_equal_the_package(tmp_path, dataset, longest):
    radgraph = RadGraph(write_radgraph(tmp_path, dataset, longest=longest))
    found = [[[e.words, e.label, [list(r) for r in e.relations]] for e in radgraph.annotate(r)] for r in REPORTS]
    expected = TABLE["radgraph"][f"{dataset}_{longest}"]
    assert found == expected["annotations"]
    assert sum(map(len, found)) > 50
    pairs = [(radgraph.annotate(a), radgraph.annotate(b)) for a, b in zip(PREDICTIONS, REFERENCES, strict=True)]
    assert [entity_f1(*pair) for pair in pairs] == pytest.approx(expected["simple"], abs=1e-12)
    assert [partial_f1(*pair) for pair in pairs] == pytest.approx(expected["partial"], abs=1e-12)


def test_the_annotation_of_physionets_radgraph_is_named_none(tmp_path):
    """Its archive does not name a data set; words are split as in RadGraph 1.0."""
    found = RadGraph(write_radgraph(tmp_path, "None")).annotate(REPORTS[2])
    assert all(entity.words in " ".join(split_words(REPORTS[2], first_release=True)) for entity in found)
    assert RadGraph(tmp_path).annotate("") == ()


def test_radgraph_f1s_computed_by_hand():
    def entity(words, label, *relations):
        return Entity(words=words, label=label, relations=relations)

    predicted = (entity("edema", "O"), entity("mild", "O", ("modify", 0)), entity("left", "A"))
    expected = (entity("edema", "O"), entity("mild", "O", ("modify", 0)), entity("lobe", "A"), entity("left", "O"))
    assert entity_f1(predicted, expected) == pytest.approx(2 * 2 / 7)
    assert relation_f1(predicted, expected) == 1
    assert paper_f1(predicted, expected) == pytest.approx((4 / 7 + 1) / 2)
    without = (entity("edema", "O"), entity("mild", "O"), entity("left", "A"))
    assert partial_f1(predicted, without) == pytest.approx(2 * 2 / 6)
    assert relation_f1(predicted, without) == 0
    assert paper_f1((), expected) == paper_f1((), ()) == 0


def test_words_of_both_releases():
    report = "Heart size 2.5 cm (stable), 50%. No edema/effusion."
    assert split_words(report, first_release=True) == (
        ["Heart", "size", "2", ".", "5", "cm", "(", "stable", ")", ",", "50%", ".", "No", "edema", "/", "effusion", "."]
    )
    assert split_words(report, first_release=False) == (
        ["Heart", "size", "2", ".", "5", "cm", "(", "stable", "),", "50", "%", ".", "No", "edema", "/", "effusion", "."]
    )


def test_ratescore_equals_the_package(folders):
    """The package loses an entity at the end of a sentence if the tagger labels [SEP], which this random one does."""
    scorer = RateScore(folders / "ratescore")
    found = [[list(entity) for part in scorer._rules.split(text) for entity in scorer.tag(part)] for text in REPORTS]
    equal = {text for text, ours, theirs in zip(REPORTS, found, TABLE["entities"], strict=True) if ours == theirs}
    assert len(equal) == 6
    for ours, theirs in zip(found, TABLE["entities"], strict=True):
        assert 0 <= len(ours) - len(theirs) <= 1
    compared = [place for place, pair in enumerate(zip(PREDICTIONS, REFERENCES, strict=True)) if equal.issuperset(pair)]
    assert len(compared) >= 4
    for place in compared:
        assert scorer.score(PREDICTIONS[place], REFERENCES[place]) == pytest.approx(TABLE["ratescore"][place], abs=1e-5)


def test_labeled_runs():
    assert labeled_runs(["O", "B-A", "I-A", "O", "I-A", "B-D", "B-A", "I-D"]) == [
        (1, 2, "A"),
        (5, 5, "D"),
        (6, 7, "A"),
    ]
    assert labeled_runs([]) == []


def test_ratescore_computed_by_hand():
    """One entity each: both cosines are equal, so the score is the cosine, and lower if one denies the other."""
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    predicted = Entities(types=("DISEASE",), embeddings=one)
    assert pair_score(predicted, Entities(types=("DISEASE",), embeddings=other)) == pytest.approx(0.5**0.5)
    denied = Entities(types=("NON-DISEASE",), embeddings=other)
    assert pair_score(predicted, denied) == pytest.approx(0.5**0.5 * 0.8716553966489615)
    assert pair_score(predicted, Entities(types=(), embeddings=torch.zeros(0, 2))) == 0.5


def test_sentences_follow_the_rules(folders):
    rules = RateScore(folders / "ratescore")._rules
    assert rules.split("The heart is big. No edema.\nSeen by Dr. Smith. xy") == (
        ["The heart is big.", "No edema.", "Seen by Dr. Smith. xy"]
    )
    assert rules.split("") == []
    assert rules.split("no rule begins here") == ["no rule begins here"]


def test_weights_that_do_not_match_are_refused(tmp_path):
    for number, (name, write, file) in enumerate(
        (("chexbert", write_chexbert, "chexbert.pth"), ("radgraph", write_radgraph, "weights.th"))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder)
        saved = torch.load(folder / file, weights_only=True)
        weights = saved.get("model_state_dict", saved)
        torch.save(
            {**saved, "model_state_dict": dict(list(weights.items())[:-2])}
            if name == "chexbert"
            else {key: tensor for key, tensor in weights.items() if "relation_scorers" not in key},
            folder / file,
        )
        with pytest.raises(InputError, match="does not match"):
            load_asset(name, folder)
        (folder / file).write_bytes(b"<html>not found</html>")
        with pytest.raises(InputError, match="not a file of plain weights"):
            load_asset(name, folder)


def test_pickled_code_is_not_run(tmp_path):
    write_chexbert(tmp_path)
    torch.save({"model_state_dict": Path("x")}, tmp_path / "chexbert.pth")
    with pytest.raises(InputError, match="not a file of plain weights"):
        Chexbert(tmp_path)


def test_all_metrics_are_listed_with_reasons_for_absence(folders):
    assets = {need.name: MissingAsset(f"no {need.name} here") for need in ASSETS}
    absent = [metric.score(["a"], ["a"]) for metric in report_metrics(assets)]
    missing = {result.name: result.reason for result in absent if isinstance(result, AbsentMetric)}
    assert set(missing) == {metric.name for metric in report_metrics(assets) if metric.assets}
    assert missing["meteor"] == "no punkt here; no wordnet here"
    assert {result.name for result in absent} - set(missing) == {"bleu4_sacrebleu", "bleu4_coco", "rouge_l"}
    present = assets | {name: folders / name for name in ("chexbert", "radgraph", "ratescore", "roberta-large")}
    results = [metric.score(PREDICTIONS, REFERENCES) for metric in report_metrics(present)]
    scored = {result.name: result.value for result in results if not isinstance(result, AbsentMetric)}
    assert len(scored) == len(results) - 2
    assert all(0 <= value <= 1.0001 for value in scored.values())


def test_metrics_with_an_unreadable_asset_are_absent(tmp_path):
    (metric,) = [metric for metric in report_metrics({"chexbert": tmp_path}) if metric.name == "chexbert_cosine"]
    assert metric.absent is None
    result = metric.score(["a"], ["a"])
    assert isinstance(result, AbsentMetric)
    assert "config.json" in result.reason
    with pytest.raises(ValueError, match="2 predicted reports, but 1"):
        metric.score(["a", "b"], ["a"])


def test_ties_between_entities_are_resolved_as_in_the_package():
    """One name in several findings, with types of different weights: `topk` and `max` select different ones."""
    generator = torch.Generator().manual_seed(5)
    names = torch.randn(3, 8, generator=generator)
    types = ("ABNORMALITY", "ANATOMY", "DISEASE", "NON-ABNORMALITY", "NON-DISEASE", "ANATOMY", "DISEASE")
    others = Entities(types=types, embeddings=names[torch.tensor([0, 0, 1, 0, 1, 2, 0])])
    seekers = Entities(types=("DISEASE", "ANATOMY", "NON-DISEASE"), embeddings=names)
    units = [torch.nn.functional.normalize(part.embeddings, p=2, dim=1) for part in (seekers, others)]
    total = weight_sum = 0.0
    moved = 0
    for kind, seeker in zip(seekers.types, units[0], strict=True):
        values, indices = torch.topk(torch.matmul(units[1], seeker), 1, largest=True)
        moved += int(indices[0]) != int(torch.matmul(units[1], seeker).argmax())
        match = others.types[int(indices[0])]
        weight = entity_matching._WEIGHTS[entity_matching.TYPES.index(kind)][entity_matching.TYPES.index(match)]
        total += float(values[0]) * weight * entity_matching._factor(kind, match)
        weight_sum += weight
    assert moved > 0
    assert found_share(seekers, others) == pytest.approx(total / weight_sum, abs=1e-7)


@pytest.mark.parametrize(("wildcard", "known"), [("c", str.islower), ("C", str.isupper), ("d", str.isdigit)])
def test_character_classes_equal_those_of_rushs_matcher(wildcard, known):
    """PyFastNER (commit c9ef88c), WildCardFunctions.py: `islower`, `isupper` and `isdigit` for every character."""
    pattern = re.compile(_pattern(f"\\{wildcard}"))
    assert all((pattern.match(chr(n)) is not None) == known(chr(n)) for n in range(0x3000))
    assert pattern.match(
        {"c": "\N{MICRO SIGN}", "C": "\N{GREEK CAPITAL LETTER DELTA}", "d": "\N{SUPERSCRIPT TWO}"}[wildcard]
    )

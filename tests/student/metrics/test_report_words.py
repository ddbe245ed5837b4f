"""BLEU, ROUGE-L and METEOR: equal to nltk, rouge-score and sacrebleu called directly."""

import json
import math
import warnings
from pathlib import Path

import nltk
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medalign.errors import InputError
from medalign.student.metrics.reports.bleu import (
    coco_bleu,
    coco_bleu_result,
    coco_counts,
    sacrebleu_result,
    sentence_bleu_result,
)
from medalign.student.metrics.reports.overlap import meteor_result, rouge_l_result
from medalign.student.metrics.reports.report_words import coco_words, nltk_tokenizer
from medalign.student.metrics.reports.wordnet import Synonyms
from report_assets import SYNSETS, write_punkt, write_wordnet

TABLE = json.loads((Path(__file__).parent / "data" / "report_scores.json").read_text())
PREDICTIONS = [
    *TABLE["pairs"][0],
    "The lungs are clear. Dr. Smith saw no large opacity, e.g. of 2.5 cm. It's normal.",
    "The heart is big and lungs clear",
    "",
    "The man's tickers show opaqueness.",
]
REFERENCES = [
    *TABLE["pairs"][1],
    "Lungs are clear. No big opacity was seen by Dr. Smith, i.e. the heart's size is normal.",
    "The ticker is large and the lungs are unclouded",
    "No acute disease.",
    "The men's heart demonstrated opacity.",
]


@pytest.fixture(scope="module")
def nltk_data(tmp_path_factory):
    """A folder with nltk's data layout, in nltk's search path."""
    folder = tmp_path_factory.mktemp("nltk_data")
    write_punkt(folder / "tokenizers" / "punkt_tab" / "english")
    write_wordnet(folder / "corpora" / "wordnet")
    nltk.data.path.insert(0, str(folder))
    yield folder
    nltk.data.path.remove(str(folder))


@pytest.fixture(scope="module")
def tokenize(nltk_data):
    return nltk_tokenizer(nltk_data / "tokenizers" / "punkt_tab" / "english")


@pytest.fixture(scope="module")
def synonyms(nltk_data):
    return Synonyms(nltk_data / "corpora" / "wordnet")


def test_words_equal_nltks(tokenize, nltk_data):
    texts = [*PREDICTIONS, *REFERENCES, "A. J. Smith\nwent. 3 cm. XXXX? Yes!No"]
    assert [tokenize(text) for text in texts] == [nltk.word_tokenize(text) for text in texts]
    assert tokenize("Seen by Dr. Smith. No edema.") == ["Seen", "by", "Dr.", "Smith", ".", "No", "edema", "."]


def test_sentence_bleu_is_the_mean_of_nltks_scores(tokenize):
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    expected = [
        sentence_bleu(
            [nltk.word_tokenize(reference)],
            nltk.word_tokenize(prediction),
            smoothing_function=SmoothingFunction().method4,
        )
        for prediction, reference in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    result = sentence_bleu_result("bleu_paper", tokenize, PREDICTIONS, REFERENCES)
    assert result.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert result.parts[:, 0].tolist() == pytest.approx(expected, abs=1e-12)


def test_rouge_l_equals_rouge_score():
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(PREDICTIONS, REFERENCES, strict=True)
    expected = [scorer.score(reference, prediction)["rougeL"].fmeasure for prediction, reference in pairs]
    assert rouge_l_result("rouge_l", PREDICTIONS, REFERENCES).value == pytest.approx(np.mean(expected), abs=1e-12)


def test_meteor_equals_nltks_with_its_reader(tokenize, synonyms, nltk_data):
    from nltk.corpus import wordnet
    from nltk.translate.meteor_score import meteor_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about other languages
        expected = [
            meteor_score([nltk.word_tokenize(reference)], nltk.word_tokenize(prediction), wordnet=wordnet)
            for prediction, reference in zip(PREDICTIONS, REFERENCES, strict=True)
        ]
    result = meteor_result("meteor", tokenize, synonyms, PREDICTIONS, REFERENCES)
    assert result.value == pytest.approx(np.mean(expected), abs=1e-12)
    plain = meteor_result("meteor", tokenize, NoSynonyms(), PREDICTIONS, REFERENCES)
    assert result.value > plain.value  # so synonyms did count


class NoSynonyms(Synonyms):
    def __init__(self):
        self.synsets = lambda word: ()


@pytest.mark.parametrize(
    "word", ["heart", "HEARTS", "tickers", "men", "shown", "shows", "bigger", "biggest", "likely", "normal", "xyz", ""]
)
def test_synonyms_equal_those_of_nltks_reader(word, synonyms, nltk_data):
    from nltk.corpus import wordnet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [[lemma.name() for lemma in synset.lemmas()] for synset in wordnet.synsets(word)]
    assert [[lemma.name() for lemma in synset.lemmas()] for synset in synonyms.synsets(word)] == expected


def test_synonyms_of_an_irregular_form(synonyms):
    assert [synset.words for synset in synonyms.synsets("men")] == [tuple(SYNSETS["noun"][2])]
    assert [synset.words for synset in synonyms.synsets("normal")] == [("normal",)]


def test_sacrebleu_equals_sacrebleus_corpus_score():
    from sacrebleu.metrics import BLEU

    expected = BLEU().corpus_score(PREDICTIONS, [REFERENCES]).score / 100
    assert sacrebleu_result("bleu4_sacrebleu", PREDICTIONS, REFERENCES).value == pytest.approx(expected, abs=1e-12)


def test_corpus_scores_of_a_draw_equal_those_of_its_reports():
    draw = [0, 3, 3, 4, 10]
    predictions, references = [PREDICTIONS[i] for i in draw], [REFERENCES[i] for i in draw]
    for score in (sacrebleu_result, coco_bleu_result):
        whole, drawn = score("b", PREDICTIONS, REFERENCES), score("b", predictions, references)
        sums = np.stack([whole.parts[draw].sum(axis=0), whole.parts.sum(axis=0)])
        assert whole.combine(sums).tolist() == pytest.approx([drawn.value, whole.value], abs=1e-12)


def test_coco_bleu_equals_pycocoevalcap():
    close = coco_bleu_result("bleu4_coco", *TABLE["close"])
    assert close.value == pytest.approx(TABLE["coco_close"], rel=1e-6)
    assert close.value > 0.3
    assert coco_bleu_result("bleu4_coco", *TABLE["pairs"]).value == pytest.approx(TABLE["coco"], rel=1e-6)


@given(st.lists(st.tuples(*[st.lists(st.sampled_from("abc"), min_size=4, max_size=9)] * 2), min_size=1, max_size=4))
def test_coco_bleu_equals_nltks_corpus_bleu(pairs):
    from nltk.translate.bleu_score import corpus_bleu

    sums = np.sum([coco_counts(predicted, expected) for predicted, expected in pairs], axis=0, dtype=float)
    if sums[2:6].all():  # nltk warns and gives 0 otherwise
        expected = corpus_bleu([[reference] for _, reference in pairs], [predicted for predicted, _ in pairs])
        assert float(coco_bleu(sums)) == pytest.approx(expected, rel=1e-6)


def test_a_perfect_report_scores_one_and_no_reports_give_nan(tokenize):
    report = ["The heart is normal in size and shape."]
    for result in (
        sentence_bleu_result("b", tokenize, report, report),
        sacrebleu_result("b", report, report),
        coco_bleu_result("b", report, report),
        rouge_l_result("r", report, report),
    ):
        assert result.value == pytest.approx(1)
    assert math.isnan(float(coco_bleu(np.zeros(10))))
    assert sacrebleu_result("b", [], []).value is None


def test_coco_words_have_no_punctuation_or_case():
    assert coco_words("The heart's size, 2.5 cm; cardio-mediastinal (1/2).") == (
        ["the", "heart's", "size", "2.5", "cm", "cardio-mediastinal", "1/2"]
    )


def test_folders_without_the_data_are_refused(tmp_path):
    with pytest.raises(InputError, match="Punkt"):
        nltk_tokenizer(tmp_path)
    write_punkt(tmp_path)
    (tmp_path / "ortho_context.tab").write_text("no number here\n")
    with pytest.raises(InputError, match="Punkt"):
        nltk_tokenizer(tmp_path)
    with pytest.raises(InputError, match="WordNet"):
        Synonyms(tmp_path)

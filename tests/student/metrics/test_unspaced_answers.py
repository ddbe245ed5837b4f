"""Chinese and Japanese answers, computed by hand: each character is a word, and verbs mean yes or no."""

import pytest
from medalign.pipeline.data.importers.tables.table import answer_type
from medalign.student.metrics.answer_words import is_unspaced, strict_words
from medalign.student.metrics.choices import strict_choice
from medalign.student.metrics.polarity import answer_polarity, is_yes_or_no, stated_polarity
from medalign.student.metrics.vqa import AnsweredQuestion, reference_score, strict_score, summarize


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("左肺", ["左", "肺"]),
        ("CT图像,2.5厘米", ["ct", "图", "像", "2.5", "厘", "米"]),
        ("T2加权 MRI", ["t2", "加", "权", "mri"]),
        ("右肺。左肺、心脏", ["右", "肺", "左", "肺", "心", "脏"]),
        ("ＣＴ", ["ct"]),  # full-width letters are letters
        ("肺のレントゲン", ["肺", "の", "レ", "ン", "ト", "ゲ", "ン"]),
        ("\U00020bb7野家", ["\U00020bb7", "野", "家"]),  # beyond the first 65,536 characters
        ("흉부 엑스레이", ["흉부", "엑스레이"]),  # Korean has spaces
        ("the patient's l'os", ["patients", "los"]),
    ],
)
def test_words_in_text_without_spaces(text, words):
    assert strict_words(text) == words


@pytest.mark.parametrize(
    ("prediction", "answer", "strict"),
    [
        ("左肺", "左肺", 1),
        ("左肺上叶", "左肺", 1),
        ("病变在右肺", "左肺", 0.5),  # one of two characters
        ("肺肺肺", "左肺", 0.5),  # found at most as often as it is in the answer
        ("心脏", "左肺", 0),
        ("X光", "X光片", 2 / 3),
        ("", "左肺", 0),
    ],
)
def test_open_recall_counts_characters(prediction, answer, strict):
    assert strict_score(prediction, answer, "open").value == pytest.approx(strict)
    assert reference_score(prediction, answer, "open").value in (0, 1)  # as run_eval: a sentence is one word


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("不是", "是", 0),  # has the character of "is" in it
        ("是的", "是", 1),
        ("有。", "是", 1),
        ("没有", "有", 0),
        ("没有", "不是", 1),
        ("这是一张CT,其中没有肺", "没有", 1),  # a denial anywhere
        ("这是一张CT,其中有肺", "有", 1),
        ("是的,左侧没有", "是", 1),  # what stands first by itself decides
        ("图中不包含肝脏", "否", 1),
        ("不确定", "不是", 0),
        ("不确定", "是", 0),
        ("无法判断是否有肿块", "有", 0),
        ("无法判断是否有肿块", "没有", 0),
        ("未见异常", "无", 1),
        ("有没有肿块?有", "有", 1),  # the question repeated
        ("Yes", "是", 1),
        ("不是", "no", 1),
        ("yes", "不是的。", 0),
        ("左肺上叶", "左肺", 1),  # neither yes nor no: its characters side by side
        ("左侧的肺", "左肺", 0),
        ("对比度正常", "没有", 0),
    ],
)
def test_closed_answers_in_chinese(prediction, answer, right):
    assert strict_score(prediction, answer, "closed").value == right


def test_only_a_complete_phrase_is_a_yes():
    assert answer_polarity("会厌") is None  # the epiglottis begins with the character of "will"
    assert answer_polarity("对比增强") is None
    assert answer_polarity("有,在左侧") == "yes"
    assert answer_polarity("No, left") == "no"
    assert stated_polarity("肺") is None
    assert strict_score("是", "是", None).kind == "closed"
    assert strict_score("肺", "肺", None).kind == "open"


def test_choices_in_chinese():
    options = ["左肺", "右肺", "肺", "心脏"]
    assert [strict_choice(predicted, options) for predicted in ("右肺", "B", "病变在左肺", "左肺或右肺", "肝")] == [
        1,
        1,
        0,
        None,
        None,
    ]


def test_questions_without_spaces_are_counted():
    questions = [
        AnsweredQuestion(prediction="x", answer=answer, answer_type="open") for answer in ("左肺", "CT", "CT图像", None)
    ]
    assert summarize(questions).unspaced == 2
    assert not is_unspaced("Größe 5 µm")


@pytest.mark.parametrize("answer", ["yes", "No.", "是", "没有。", "不是", "否"])
def test_only_yes_or_no_is_a_closed_answer(answer):
    assert is_yes_or_no(answer)
    assert answer_type(None, answer, None) == "closed"


@pytest.mark.parametrize("answer", ["yes, on the left", "no mass", "肺", "是否", "not", ""])
def test_longer_answers_are_open(answer):
    assert not is_yes_or_no(answer)
    assert answer_type(None, answer, None) == "open"

"""Answers in words that the student's tokenizer lacks are no silent training targets."""

import json

import pytest
from labs import QUESTIONS, lab_settings, make_lab, write_config
from medalign.cli import app
from medalign.pipeline.demo.demo import ASSETS
from medalign.pipeline.reports.switch import NO_REPORT
from medalign.pipeline.runs.unknown_words import unknown_word_warning
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from students import byte_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Six whole words, everything else is `<unk>`."""
    words = ["<unk>", "yes", "no", "left", "lung", "the"]
    tokenizer = Tokenizer(models.WordLevel(vocab={word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize(
    ("answers", "start"),
    [
        (["yes", "ja", "the left Lunge", "ja"], "3 of 4 training answers contain words that this student's tokenizer "
         "does not know (first: 'ja'): it cannot write them"),
        (["no", "the left Lunge"], "1 of 2 training answers contain words that this student's tokenizer does not know "
         "(first: 'Lunge')"),
        (["yes", "the left lung"], None),
        ([], None),
        (["Yes", "no", "the LEFT lung"], "2 of 3 training answers contain words that this student's tokenizer does not "
         "know (first: 'Yes'), but only the case differs: the tokenizer knows 'yes'. Write the answers in lowercase"),
        (["Yes", "ja", "No"], "3 of 3 training answers contain words that this student's tokenizer does not know "
         "(first: 'ja'): it cannot write them. Use a language model whose tokenizer covers the language of the "
         "answers. In 2 of these answers, only the case differs: the tokenizer knows 'yes'. Write"),
        (["Yes ja"], "1 of 1 training answers contain words that this student's tokenizer does not know "
         "(first: 'ja'): it cannot write them"),
        (["<unk>"], "1 of 1 training answers contain"),  # as text, not as the token
    ],
)  # fmt: skip
def test_answers_with_unknown_words_are_counted(answers, start):
    found = unknown_word_warning(word_tokenizer(), answers, "training answers")
    assert (found is None) == (start is None)
    assert (found or "").startswith(start or "")


def test_a_tokenizer_of_bytes_knows_every_word():
    tokenizer = byte_tokenizer()
    assert unknown_word_warning(tokenizer, ["ja", "链接", "\U0001f600"], "training answers") is None
    tokenizer.unk_token = tokenizer.eos_token  # GPT-2's, which ends every answer, too
    assert unknown_word_warning(tokenizer, ["ja"], "training answers") is None


def printed(*arguments: object) -> str:
    """All output of a command; warnings are on stderr and the table on stdout."""
    result = CliRunner().invoke(app, ["student", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_plan_training_and_evaluation_warn(tmp_path, monkeypatch):
    """The demo's student knows some words, but not `noise`, of which all answers of the lab consist."""
    monkeypatch.setenv(NO_REPORT, "1")
    values = lab_settings(make_lab(tmp_path), max_steps=1, gradient_accumulation_steps=1)
    values["student"] = {"path": str(ASSETS / "phantom-student"), "template": "plain"}
    values["alignment"] |= {"alpha": 0.0, "beta": 0.0}
    del values["data"]["store"]
    settings, asked = Settings.model_validate(values), QUESTIONS - 4
    start = f"{asked} of {asked} training answers contain words that this student's tokenizer does not know"
    assert plan_training(settings).summary()["unknown_words"].startswith(f"{start} (first: 'noise')")
    config, out = write_config(tmp_path / "run.yaml", values), tmp_path / "run"
    assert printed("train", config, "--dry-run").count(start) == 1
    assert f"warning: {start}" in (training := printed("train", config, "--out", out))
    assert training.count(start) == 1
    assert printed("train", config, "--out", out, "--resume").count(start) == 1  # it is finished: only the table
    asked_again = ("--student", out, "--manifest", tmp_path / "manifest.parquet", "--split", "validation")
    evaluation = ("evaluate", *asked_again, "--max-new-tokens", 1, "--device", "cpu", "--out", tmp_path / "answers")
    start = "4 of 4 reference answers contain words"
    assert f"warning: {start}" in (text := printed(*evaluation))
    assert text.count(start) == 1
    report = json.loads(CliRunner().invoke(app, ["student", *map(str, evaluation), "--resume", "--json"]).stdout)
    assert report["warnings"][0].startswith(start)

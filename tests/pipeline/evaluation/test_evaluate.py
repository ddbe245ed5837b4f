"""An evaluation scores what the student says, survives being killed, and never mixes two runs."""

import json
import shutil
from dataclasses import asdict, replace

import polars as pl
import pytest
import torch
from medalign.errors import InputError
from medalign.pipeline.data.importers.common import read_images
from medalign.pipeline.data.manifest import Manifest, ManifestRow, Turn
from medalign.pipeline.data.samples import manifest_samples
from medalign.pipeline.evaluation.evaluate import EvaluationRequest, evaluate_student, run_evaluation
from medalign.pipeline.evaluation.generate import ask
from medalign.pipeline.reports.runs.evaluation_page import evaluation_page
from medalign.pipeline.reports.runs.wording import warning_texts
from medalign.pipeline.runs.answer_log import LOG_FILE, open_run
from medalign.pipeline.runs.provenance import adapter_folder
from medalign.pipeline.runs.stop_reasons import finish_warnings
from medalign.progress import Silent
from medalign.student.adapters.student_record import fingerprint_adapter
from medalign.student.decoding import Decoding, choose_decoding, method_registry
from medalign.student.decoding.generation import answer_batch
from medalign.student.loading.student_loading import load_student
from medalign.student.metrics.vqa import AnsweredQuestion, score_question
from students import write_images

FEW_TOKENS = Decoding(max_new_tokens=4)


class Killed(Exception):
    pass


class KillAfter(Silent):
    """Progress that stops the run after so many batches, as a kill between two writes would."""

    def __init__(self, batches):
        self.left = batches
        self.notes = []

    def advance(self, steps=1):
        self.left -= 1
        if self.left == 0:
            raise Killed

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def manifest_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    names = [path.name for path in write_images(folder / "images", [(24, 24), (40, 20), (18, 30)])]
    columns = read_images(folder / "images", names, Silent()).columns
    kinds = (("closed", "yes"), ("open", "left lung"), ("closed", "left"), ("report", "A long one."), (None, None))
    rows = [
        ManifestRow(
            question_id=f"q{number}",
            question="Is it there?" if number % 2 else "What is the largest organ?",
            answer=kinds[number % 5][1],
            answer_type=kinds[number % 5][0],
            split="test" if number < 7 else "train",
            data_use="public",
            modality=("CT", "MRI")[number % 2],
            history=(Turn("A scan?", "yes"),) if number == 3 else (),
            **(columns[names[number % 3]] if number != 5 else {}),
        )
        for number in range(9)
    ]
    rows.append(ManifestRow(question_id="i", split="images", data_use="public", **columns[names[0]]))
    path = folder / "m.parquet"
    Manifest.from_rows(rows, folder / "images", "test").write(path)
    return path


@pytest.fixture(scope="module")
def student(student_folder):
    return load_student(student_folder)


def evaluate(student, manifest_file, out, progress=None, decoding=FEW_TOKENS, **options):
    manifest = Manifest.read(manifest_file).split("test")
    options = {"batch_size": 2, **options}
    return evaluate_student(student, manifest, decoding, out, progress=progress or Silent(), **options)


def read(out):
    return pl.read_parquet(out / "predictions.parquet"), json.loads((out / "metrics.json").read_text())


def test_predictions_and_scores_are_what_the_student_says(student, manifest_file, tmp_path):
    report = evaluate(student, manifest_file, tmp_path / "out")
    table, metrics = read(tmp_path / "out")
    manifest = Manifest.read(manifest_file).split("test")
    samples = manifest_samples(manifest)
    expected = [
        answer.text
        for start in (0, 2, 4, 6)
        for answer in answer_batch(student, samples[start : start + 2], FEW_TOKENS)
    ]
    assert table["prediction"].to_list() == expected
    assert len(set(expected)) > 1
    assert table["question_id"].to_list() == [sample.question_id for sample in samples]
    for row in table.iter_rows(named=True):
        question = AnsweredQuestion(prediction=row["prediction"], answer=row["answer"], answer_type=row["answer_type"])
        scores = score_question(question)
        assert row["reference_score"] == (scores.reference and scores.reference.value)
        assert row["strict_kind"] == (scores.strict and scores.strict.kind)
    closed = table.filter(pl.col("strict_kind") == "closed")["strict_score"]
    assert metrics["scores"]["strict"]["closed_accuracy"] == {"value": closed.mean(), "count": 3}
    assert metrics["scores"]["strict"]["unscored"] == 2
    assert metrics["run"] == report.run
    assert (report.summary()["split"], report.summary()["questions"]) == ("test", 7)
    assert 0 < report.seconds < 60
    shown = {(example.question, example.answer) for example in report.examples}
    assert shown <= set(table.select("question", "prediction").iter_rows())
    assert [example.outcome for example in report.examples].count("wrong") == 3
    header = json.loads(pl.read_parquet_metadata(tmp_path / "out" / "predictions.parquet")["medalign"])
    assert header["run"]["decoding"]["max_new_tokens"] == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "metrics.json",
        "predictions.parquet",
        "run.json",
        "timings.parquet",
    ]


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("decoding", [FEW_TOKENS, choose_decoding("nucleus", {"seed": 3}, max_new_tokens=4)])
def test_a_killed_evaluation_goes_on_to_the_same_result(student, manifest_file, tmp_path, batches, decoding):
    evaluate(student, manifest_file, tmp_path / "whole", decoding=decoding)
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        evaluate(student, manifest_file, out, KillAfter(batches), decoding)
    with (out / LOG_FILE).open("a") as file:
        file.write('{"question_id": "q')  # torn in the middle of a write
    progress = KillAfter(99)
    torch.manual_seed(123)
    report = evaluate(student, manifest_file, out, progress, decoding, resume=True)
    assert report.resumed == 2 * batches
    notes = [note for note in progress.notes if not note.startswith("warning: ")]
    assert notes == [f"resuming after {2 * batches} of 7 answers"]
    kept, expected = ((folder / "predictions.parquet").read_bytes() for folder in (out, tmp_path / "whole"))
    assert kept == expected
    assert report.run == json.loads((tmp_path / "whole" / "run.json").read_text())


def test_half_a_batch_is_answered_again(student, manifest_file, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Killed):
        evaluate(student, manifest_file, out, KillAfter(2))
    lines = (out / LOG_FILE).read_text().splitlines(keepends=True)
    (out / LOG_FILE).write_text("".join(lines[:4]))  # the line on versions and device, a batch, half a batch
    assert evaluate(student, manifest_file, out, resume=True).resumed == 2


def test_a_finished_evaluation_is_reported_and_not_run_again(student, manifest_file, tmp_path):
    first = evaluate(student, manifest_file, tmp_path / "out")
    again = evaluate(student, manifest_file, tmp_path / "out", KillAfter(1), resume=True)
    assert again.scores.vqa == first.scores.vqa
    assert again.seconds == first.seconds
    assert again.resumed == 7


def test_a_folder_in_use_is_told_before_the_student_is_loaded(tmp_path):
    (tmp_path / "file").touch()
    request = EvaluationRequest(
        student=tmp_path / "no-student",
        adapter=None,
        manifest=tmp_path / "no-manifest",
        root=None,
        split="test",
        decode="greedy",
        batch_size=1,
        max_new_tokens=1,
        device="cpu",
    )
    with pytest.raises(InputError, match="is not an evaluation"):
        run_evaluation(request, tmp_path, Silent())


def test_another_run_is_never_mixed_in(student, manifest_file, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Killed):
        evaluate(student, manifest_file, out, KillAfter(1))
    with pytest.raises(InputError, match=r"already contains an evaluation.*--resume"):
        evaluate(student, manifest_file, out)
    with pytest.raises(InputError) as caught:
        evaluate(student, manifest_file, out, decoding=choose_decoding("beam", max_new_tokens=4), limit=3, resume=True)
    message = str(caught.value)
    assert "decoding.name: recorded 'greedy', now 'beam'" in message
    assert "num_beams" not in message
    assert "questions: recorded 7, now 3" in message
    assert "batch_size" not in message
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="is not an evaluation"):
        evaluate(student, manifest_file, tmp_path / "other", resume=True)


def test_edited_code_of_a_users_own_method_is_another_run(student, manifest_file, tmp_path, monkeypatch):
    """As if the method's file had been edited between the two runs."""
    out, codes = tmp_path / "out", iter(["1" * 64, "2" * 64])
    monkeypatch.setattr(method_registry, "code_of", lambda method: next(codes))
    with pytest.raises(Killed):
        evaluate(student, manifest_file, out, KillAfter(1))
    with pytest.raises(InputError, match="resumed:\n  - decoding: the source of method 'greedy' changed\n") as caught:
        evaluate(student, manifest_file, out, resume=True)
    assert str(caught.value).endswith("Run the command again with another --out, or restore the method's file.")


def test_a_log_of_other_questions_is_refused(student, manifest_file, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Killed):
        evaluate(student, manifest_file, out, KillAfter(1))
    (out / LOG_FILE).write_text((out / LOG_FILE).read_text().replace('"q0"', '"other"'))
    with pytest.raises(InputError, match="has answers to questions other than this run's"):
        evaluate(student, manifest_file, out, resume=True)


def test_saved_answers_are_those_of_the_run(student, manifest_file, tmp_path):
    """A table that was copied from another run, run.json and the log damaged, a base that now ends elsewhere."""
    out, other = tmp_path / "out", tmp_path / "other"
    evaluate(student, manifest_file, out)
    evaluate(student, manifest_file, other, limit=3)
    whole = (out / "predictions.parquet").read_bytes()
    shutil.copy(other / "predictions.parquet", out)
    with pytest.raises(InputError, match=r"has answers of a different run from .* \(questions: 3, expected 7"):
        evaluate(student, manifest_file, out, resume=True)
    (out / "predictions.parquet").write_bytes(whole[:200])
    with pytest.raises(InputError, match=r"predictions.parquet is damaged .* evaluate again with another --out"):
        evaluate(student, manifest_file, out, resume=True)
    (out / "predictions.parquet").unlink()
    with pytest.raises(InputError, match=r"has metrics.json but no predictions.parquet"):
        evaluate(student, manifest_file, out, resume=True)
    prompt = replace(student.prompt, end_tokens=(2, 9))
    with pytest.raises(InputError, match=r"prompt\.end_tokens: recorded \[2\], now \[2, 9\]"):
        evaluate(replace(student, prompt=prompt), manifest_file, other, limit=3, resume=True)
    (other / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run.json is not valid JSON"):
        evaluate(student, manifest_file, other, limit=3, resume=True)


def test_a_damaged_line_of_the_log_is_named(student, manifest_file, tmp_path):
    with pytest.raises(Killed):
        evaluate(student, manifest_file, tmp_path / "out", KillAfter(1))
    log = tmp_path / "out" / LOG_FILE
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], "{", *lines[2:]]) + "\n")
    with pytest.raises(InputError, match=r"answers.jsonl: invalid line 2"):
        evaluate(student, manifest_file, tmp_path / "out", resume=True)


def test_the_command_finds_split_student_and_limit(student_folder, manifest_file, tmp_path):
    request = EvaluationRequest(
        student=student_folder, manifest=manifest_file, limit=3, batch_size=3, max_new_tokens=2, device="cpu"
    )
    report = run_evaluation(request, tmp_path / "out", Silent())
    assert report.scores.vqa.questions == 3
    assert report.run["splits"] == ["test"]
    assert report.run["adapter"] is None
    with pytest.raises(InputError, match=r"no split 'val'; its splits: test \(7 rows\), train \(2 rows\)"):
        run_evaluation(replace(request, split="val"), tmp_path / "none", Silent())
    with pytest.raises(InputError, match="has no question in split images"):
        run_evaluation(replace(request, split="images"), tmp_path / "none", Silent())
    with pytest.raises(InputError, match="image files are missing"):
        run_evaluation(replace(request, root=tmp_path), tmp_path / "none", Silent())
    assert not (tmp_path / "none").exists()


def test_the_adapters_fingerprint_is_that_of_its_weights(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"one")
    first = fingerprint_adapter(folder)
    (folder / "medalign.json").write_text("{}")
    assert fingerprint_adapter(folder) == first
    (folder / "rotation.safetensors").write_bytes(b"two")
    assert fingerprint_adapter(folder) != first
    assert adapter_folder(folder, None) == folder
    assert adapter_folder(folder, tmp_path) == tmp_path


def test_a_run_whose_decoding_lists_layers_is_gone_on_with(tmp_path):
    def run(layers):
        return {"decoding": asdict(choose_decoding("dola", {"layers": layers}, max_new_tokens=4))}

    open_run(tmp_path / "out", run([0, 2]), resume=False)
    open_run(tmp_path / "out", run([0, 2]), resume=True)
    with pytest.raises(InputError, match=r"decoding\.settings\.layers: recorded \[0, 2\], now \[0, 1\]"):
        open_run(tmp_path / "out", run([0, 1]), resume=True)


def test_empty_and_cut_off_answers_are_counted_kept_and_warned_of(student, manifest_file, tmp_path):
    """A question's answer ends, is cut off, or is empty; the end token comes first for some of them here."""
    short = Decoding(max_new_tokens=2)
    manifest = Manifest.read(manifest_file).split("test")
    samples = manifest_samples(manifest)
    spoken = answer_batch(student, samples, Decoding(max_new_tokens=1))
    assert {answer.finish for answer in spoken} == {"length"}
    first = student.tokenizer.encode(spoken[0].text, add_special_tokens=False)[0]
    mine = replace(student, end_tokens=(*student.end_tokens, first))
    progress = KillAfter(99)
    report = evaluate(mine, manifest_file, tmp_path / "out", progress, short)
    table, metrics = read(tmp_path / "out")
    empty = [not text for text in table["prediction"]]
    assert 0 < sum(empty) < len(empty)
    assert (table["finish"] == "empty").to_list() == empty
    counts = {name: int((table["finish"] == name).sum()) for name in ("end", "length", "empty", "unknown")}
    assert metrics["finishes"] == report.finishes == counts
    assert counts["unknown"] == 0
    assert counts["length"] > 0
    summary = report.summary()
    assert (summary["empty_answers"], summary["cut_off_answers"]) == (counts["empty"], counts["length"])
    told = [note for note in progress.notes if note.startswith("warning: ")]
    assert told == [f"warning: {line}" for line in summary["warnings"]]
    assert f"{counts['empty']} of 7 answers are empty" in told[1]
    assert f"{counts['length']} of 7 answers were cut off at max_new_tokens 2" in told[2]
    assert "prompt template vicuna_v1 is a guess" in told[0]
    assert "fewer than 10" in told[-1]
    page = evaluation_page(tmp_path / "out")
    shown = next(section for section in page.sections if section.title == "Warnings").text
    assert shown == warning_texts(summary["warnings"])


def test_answers_of_an_earlier_version_do_not_say_how_they_stopped(student, manifest_file, tmp_path):
    out = tmp_path / "out"
    evaluate(student, manifest_file, out)
    path = out / "predictions.parquet"
    kept = {name: value for name, value in pl.read_parquet_metadata(path).items() if name != "ARROW:schema"}
    pl.read_parquet(path).drop("finish").write_parquet(path, metadata=kept)
    report = evaluate(student, manifest_file, out, resume=True)
    assert report.finishes == {"end": 0, "length": 0, "empty": 0, "unknown": 7}
    summary = report.summary()
    assert (summary["empty_answers"], summary["cut_off_answers"]) == (None, None)
    assert pl.read_parquet(path)["finish"].to_list() == ["unknown"] * 7
    killed = tmp_path / "killed"
    with pytest.raises(Killed):
        evaluate(student, manifest_file, killed, KillAfter(2))
    lines = [json.loads(line) for line in (killed / LOG_FILE).read_text().splitlines()]
    del lines[0]  # on versions and device
    for line in lines:
        del line["finish"]
    (killed / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = evaluate(student, manifest_file, killed, resume=True)
    assert report.finishes["unknown"] == len(lines) > 0


def test_chinese_answers_are_counted_and_told_of(student, manifest_file, tmp_path):
    manifest = Manifest.read(manifest_file)
    path = tmp_path / "chinese.parquet"
    answers = pl.when(pl.col("answer") == "left lung").then(pl.lit("左肺")).otherwise(pl.col("answer"))
    Manifest(manifest.frame.with_columns(answer=answers), manifest.root, "test").write(path)
    progress = KillAfter(99)
    summary = evaluate(student, path, tmp_path / "out", progress).summary()
    assert summary["unspaced_answers"] == 2
    assert "2 of 7 reference answers are in Chinese or Japanese" in progress.notes[-2]


def test_a_single_answer_says_how_it_stopped(student_folder, tmp_path):
    (image,) = write_images(tmp_path, [(24, 24)])
    asked = {"decode": "greedy", "overrides": (), "device": "cpu", "dtype": "float32"}
    answer = ask(student_folder, None, [image], "Is it?", **asked, template="vicuna_v1", max_new_tokens=3)
    assert answer.finish == "length"
    (line,) = answer.warnings
    assert line.startswith("the answer was cut off at max_new_tokens 3")
    guessed = ask(student_folder, None, [image], "Is it?", **asked, template=None, max_new_tokens=3)
    assert "vicuna_v1 is a guess" in guessed.summary()["warnings"][0]


def test_shares_of_answers_that_are_warned_of():
    """More than one in twenty."""
    counts = {"end": 95, "length": 5, "empty": 0, "unknown": 0}
    assert finish_warnings(counts, 8) == []
    (line,) = finish_warnings(counts | {"end": 94, "length": 6}, 8)
    assert line.startswith("6 of 100 answers were cut off at max_new_tokens 8")
    (line,) = finish_warnings({"end": 2, "length": 0, "empty": 4, "unknown": 0}, 8)
    assert line.startswith("4 of 6 answers are empty")
    assert finish_warnings({"end": 0, "length": 0, "empty": 0, "unknown": 9}, 8) == []

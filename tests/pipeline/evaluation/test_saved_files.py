"""What a run left and reads again may be half-written or edited by hand: each file says where, what, and what to do."""

import json
import re

import numpy as np
import polars as pl
import pytest
from medalign.errors import InputError
from medalign.pipeline.demo.demo import DemoPlan, run_demo
from medalign.pipeline.evaluation.comparison.claim import claim
from medalign.pipeline.evaluation.comparison.saved_cells import check_trainings
from medalign.pipeline.evaluation.comparison.spec import ComparisonSpec
from medalign.pipeline.evaluation.grounding.attention_maps import MapParts
from medalign.pipeline.evaluation.grounding.measures import MEASURES, check_table
from medalign.pipeline.evaluation.scoring import METRICS_FILE, read_answers, read_conditions
from medalign.pipeline.runs.answer_log import LOG_FILE, AnswerLog, LoggedAnswer, open_run, write_table
from medalign.pipeline.runs.run_record import check_metrics
from medalign.progress import Silent
from medalign.student.training.training_run import LOG_FILE as TRAINING_LOG
from medalign.student.training.training_run import _truncate_log
from safetensors.numpy import save_file

IDS = [f"q{number}" for number in range(6)]
CONDITIONS = {"versions": {"medalign": "0", "code": "a"}, "device": "cpu", "lora_kept": None}


def answer(number: int, **changes) -> dict:
    line = {"question_id": IDS[number], "prediction": "yes", "seconds": 0.5, "forwards": 3, "finish": "end"}
    return line | changes


def lines(count: int = 4) -> list[bytes]:
    """A log's header and whole batches of two."""
    return [json.dumps(values).encode() for values in ({"conditions": CONDITIONS}, *map(answer, range(count)))]


def log_of(folder, written: list[bytes], torn: bytes = b"") -> AnswerLog:
    (folder / LOG_FILE).write_bytes(b"".join(line + b"\n" for line in written) + torn)
    return AnswerLog(folder, IDS, 2)


WRONG_VALUES = {
    "finish": "weird",
    "seconds": float("nan"),
    "forwards": True,
    "prediction": None,
    "question_id": ["q2"],
    "note": "mine",
}
WRONG_RANGES = [("seconds", -0.5), ("seconds", float("inf")), ("seconds", "0.5"), ("forwards", 10**30)]


@pytest.mark.parametrize(("name", "value"), [*WRONG_VALUES.items(), *WRONG_RANGES])
def test_a_wrong_value_of_an_answer_is_named_with_its_line(tmp_path, name, value):
    written = lines()
    written[3] = json.dumps(answer(2, **{name: value})).encode()
    with pytest.raises(InputError) as caught:
        log_of(tmp_path, written)
    told = str(caught.value)
    assert f"{LOG_FILE}: invalid line 4: {name}: " in told
    assert "found " in told
    assert told.endswith("Remove that line, then run the command again with --resume; its batch is answered again")
    del written[3]
    assert log_of(tmp_path, written).missing == [1, 2]


@pytest.mark.parametrize(
    "line", [b'{"question_id": "q2", "pred', b"null", b"[]", b"[" * 50_000, b"\x00" * 9, b"\xff\xfe{}", b""]
)
def test_a_line_that_is_no_answer_is_named(tmp_path, line):
    written = lines()
    written[3] = line
    with pytest.raises(InputError, match=re.escape(f"{LOG_FILE}: invalid line 4: ")) as caught:
        log_of(tmp_path, written)
    assert len(str(caught.value)) < 600


def test_a_missing_field_is_named(tmp_path):
    written = lines()
    written[2] = b'{"question_id": "q1", "prediction": "yes"}'
    with pytest.raises(InputError, match=r"invalid line 3: seconds: Field required; forwards: Field requ"):
        log_of(tmp_path, written)


@pytest.mark.parametrize("torn", [b'{"question_id": "q4", "pre', b"{", b"\x00\x00", b'{"finish": "weird"}'])
def test_a_line_that_was_being_written_is_dropped(tmp_path, torn):
    log = log_of(tmp_path, lines(), torn)
    assert (len(log.answers), log.missing) == (4, [2])
    log.append(2, [LoggedAnswer(**answer(number)) for number in (4, 5)], CONDITIONS)
    assert AnswerLog(tmp_path, IDS, 2).missing == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"versions": None}, "versions: Input should be a valid dict"),
        ({"versions": {"code": 7}}, "versions.code: Input should be a valid string, found 7"),
        ({"device": 5}, "device: Input should be a valid string, found 5"),
        ({"lora_kept": float("nan")}, "lora_kept: "),
        ({"mood": "good"}, "mood: Extra inputs are not permitted"),
    ],
)
def test_wrong_conditions_are_named(tmp_path, changes, named):
    header = json.dumps({"conditions": CONDITIONS | changes}).encode()
    with pytest.raises(InputError, match=rf"invalid conditions: {re.escape(named)}.*Remove line 1"):
        log_of(tmp_path, [header, *lines()[1:]])
    with pytest.raises(InputError, match=r"invalid line 1: conditions: Input should be .*, found \[\]"):
        log_of(tmp_path, [b'{"conditions": []}', *lines()[1:]])
    joined = {name: value for name, value in CONDITIONS.items() if name != "device"} | {"devices": ["cpu"]}
    (tmp_path / METRICS_FILE).write_text(json.dumps({"conditions": joined}))
    assert read_conditions(tmp_path) == joined
    wrong = joined | ({"devices": 5} if "device" in changes else changes)
    (tmp_path / METRICS_FILE).write_text(json.dumps({"conditions": wrong}))
    with pytest.raises(InputError, match=r"metrics.json: invalid conditions: "):
        read_conditions(tmp_path)


@pytest.mark.parametrize("threads", ["2", 0, -1, True, 1.5, [1]])
def test_recorded_threads_are_checked_before_they_are_taken(tmp_path, threads):
    (tmp_path / "run.json").write_text(json.dumps({"base": "x", "threads": threads}))
    with pytest.raises(InputError, match=r"run.json: invalid description of the run: threads: "):
        open_run(tmp_path, {"base": "x", "threads": 1}, resume=True, adopt=("threads",))
    claim(tmp_path / "c", {"seeds": [0], "threads": 1}, resume=False)
    path = tmp_path / "c" / "comparison.json"
    values = json.loads(path.read_text())
    values["answers"]["threads"] = threads
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"comparison.json: invalid number of threads: threads: "):
        claim(tmp_path / "c", {"seeds": [0], "threads": 1}, resume=True, adopt=("threads",))


@pytest.mark.parametrize(
    ("recorded", "named"),
    [
        ({"adapters.a": "abc"}, "students.s.adapters.a is 'abc', but must be a list"),
        ({"adapters.a": ["x", "y"], "adapter_settings.a": [None]}, "adapter_settings.a has 1 entry, expected 2"),
    ],
)
def test_what_a_comparison_recorded_of_its_trainings_is_checked(recorded, named):
    spec = ComparisonSpec.model_validate(
        {
            "students": [{"name": "s", "path": "s", "adapters": [{"name": "a", "paths": ["a"]}]}],
            "decodings": ["greedy"],
            "data": [{"name": "d", "manifest": "m"}],
            "baseline": {"adapter": "a", "decoding": "greedy"},
        }
    )
    with pytest.raises(InputError, match=re.escape(named)):
        check_trainings(spec, {f"students.s.{key}": value for key, value in recorded.items()})


RUN = {"base": "x"}


def write_predictions(folder, header=None, **columns) -> None:
    values = {"question_id": IDS, "prediction": ["yes"] * 6, "forwards": [3] * 6, "finish": ["end"] * 6} | columns
    seconds = values.pop("seconds", [0.5] * 6)
    header = {"format": "medalign-predictions", "version": 3, "run": RUN} | (header or {})
    write_table(folder / "predictions.parquet", pl.DataFrame(values, strict=False), header)
    timings = pl.DataFrame({"question_id": IDS[: len(seconds)], "seconds": seconds}, strict=False)
    write_table(folder / "timings.parquet", timings, header)


def test_a_table_that_is_whole_is_read(tmp_path):
    write_predictions(tmp_path)
    assert read_answers(tmp_path, RUN, IDS)[5] == LoggedAnswer(**answer(5))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"finish": ["end"] * 5 + ["weird"]}, "row 6 .*: finish: "),
        (
            {"prediction": ["yes", None, *["yes"] * 4]},
            "row 2 .*: prediction: .*, found None",
        ),
        ({"seconds": [0.5] * 3}, "row 4 .*: seconds: Input should be a valid number, found None"),
        ({"seconds": ["0.5"] * 6}, "row 1 .*: seconds: "),
        ({"forwards": [-1] * 6}, "row 1 .*: forwards: "),
        ({"header": {"run": [1]}}, "invalid metadata: run: "),
        ({"header": {"version": "3"}}, "invalid metadata: version: "),
    ],
)
def test_a_wrong_value_of_a_table_is_named_with_its_row(tmp_path, changes, named):
    write_predictions(tmp_path, **changes)
    with pytest.raises(InputError, match=rf"predictions.parquet: .*{named}.*evaluate again with another --out"):
        read_answers(tmp_path, RUN, IDS)


def test_odd_files_among_maps_are_named(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    maps = {"maps": np.zeros((2, 4, 9), dtype=np.float32)}
    save_file(maps, folder / "00000001-0-of-2.rank-1.safetensors", {"conditions": json.dumps(CONDITIONS)})
    parts = MapParts(tmp_path, 6, 2, (4, 9))
    assert (parts.missing, parts.tasks) == ([0, 2], {2})
    save_file(maps, folder / "00000000.safetensors", {"conditions": json.dumps({"versions": 5})})
    with pytest.raises(InputError, match=r"00000000.safetensors: invalid conditions: versions: .*found 5"):
        MapParts(tmp_path, 6, 2, (4, 9))
    (folder / "00000000.safetensors").rename(folder / "mine.safetensors")
    with pytest.raises(InputError, match=r"mine.safetensors is not a file of a grounding run: remove it"):
        MapParts(tmp_path, 6, 2, (4, 9))


def grounding_table() -> pl.DataFrame:
    texts = {"question_id": ["q0"], "image_hash": ["a"], "regions": [["n"]], "image_hashes": [["a"]]}
    numbers = {f"{measure.name}{end}": [0.25] for measure in MEASURES for end in ("", "_other", "_chance")}
    return pl.DataFrame({**texts, "area": [0.5], **numbers}).with_columns(layer=pl.lit(0, dtype=pl.Int32))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda table: table.drop("mass_other"), "mass_other is missing, expected Float64"),
        (lambda table: table.with_columns(layer=pl.lit("0")), "layer is String, expected Int32"),
        (lambda table: table.with_columns(mass=pl.lit(7.0)), "mass has 7.0, expected a value from 0 to 1"),
        (lambda table: table.with_columns(pointing=pl.lit(float("nan"))), "pointing has nan, expected a value"),
    ],
)
def test_a_wrong_column_of_an_earlier_grounding_run_is_named(tmp_path, change, named):
    check_table(grounding_table(), tmp_path)
    with pytest.raises(InputError, match=f"its column {named}"):
        check_table(change(grounding_table()), tmp_path)


@pytest.mark.parametrize(
    "line",
    ["5", '{"loss": 1.0}', '{"step": 1.5}', '{"step": 1, "loss": NaN}', "{", "[" * 50_000, '{"step": 1, "a": ""}'],
)
def test_a_damaged_line_of_a_training_log_is_named(tmp_path, line):
    log, good = tmp_path / TRAINING_LOG, '{"step": 1, "loss": 0.5}\n'
    log.write_text(f"{good}{line}\n{good}")
    with pytest.raises(InputError, match=r"log.jsonl: invalid line 2: .*Delete it to resume"):
        _truncate_log(log, 1)
    later = '{"step": 2, "loss": 0.5}\n'
    log.write_text(f"{good}{later}{line}")  # without a newline: it was being written
    _truncate_log(log, 1)
    assert log.read_text() == good


@pytest.mark.parametrize("text", ['{"seed": 0, "pha', "[]", "\x00"])
def test_a_half_written_plan_of_the_demo_is_named(tmp_path, text):
    (tmp_path / "demo-plan.json").write_text(text)
    with pytest.raises(InputError, match=r"demo-plan.json is not (valid JSON|a JSON object)"):
        run_demo(tmp_path, 0, Silent(), plan=DemoPlan(seed=0))


def test_scores_for_a_model_card_are_checked(tmp_path):
    reading = {"open_recall": {"value": 0.5, "count": 3}}
    run = {"splits": ["test"], "questions": 3, "questions_sha256": "a", "decoding": {"name": "greedy"}}
    whole = {"run": run, "scores": {"reference": reading, "strict": reading}}
    check_metrics(whole, tmp_path)
    wrong = {"open_recall": {"value": "high", "count": 3}}
    for change, named in (
        ({"run": {"splits": 5}}, "run.splits: "),
        ({"scores": {"reference": reading}}, "scores.strict: Field required"),
        ({"scores": {"reference": wrong, "strict": reading}}, "scores.reference.open_recall.value: .*found 'high'"),
    ):
        with pytest.raises(InputError, match=f"invalid scores: .*{named}"):
            check_metrics(whole | change, tmp_path)

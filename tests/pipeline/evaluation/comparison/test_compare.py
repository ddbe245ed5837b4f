"""A comparison runs every cell once, survives being killed, and is scored again without a student."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from comparisons import bench_spec, bench_values, make_bench, write_spec
from medalign.atomic import temporary_path
from medalign.cli import app
from medalign.errors import InputError, SettingsError
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.evaluation.comparison import cell_answers as module
from medalign.pipeline.evaluation.comparison.cells import plan_comparison
from medalign.pipeline.evaluation.comparison.compare import reanalyze_comparison, run_comparison
from medalign.pipeline.evaluation.comparison.comparison_tables import read_comparison_tables
from medalign.pipeline.reports.runs.comparison_page import comparison_page
from medalign.progress import Silent
from medalign.student.metrics.reports.report_metric import ReportMetric
from medalign.student.metrics.result import mean_result
from typer.testing import CliRunner


class Killed(Exception):
    pass


class KillAfter(Silent):
    """Progress that stops the run after so many batches."""

    def __init__(self, batches):
        self.left = batches

    def advance(self, steps=1):
        self.left -= 1
        if self.left == 0:
            raise Killed


def letters(predictions, references):
    """A number that differs between answers that mean nothing."""
    return mean_result("words", [sum(map(ord, said)) % 97 / 97 for said in predictions])


WORDS = ReportMetric(name="words", what="for this test", compute=letters)
LACKING = ReportMetric(name="chexbert", what="for this test", absent="its files are not here", compute=letters)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def whole(bench):
    out = bench / "whole"
    return run_comparison(bench_spec(bench), out, [WORDS, LACKING], Silent(), device="cpu")


def predictions(out):
    """Every cell's answers and passes; not its times."""
    columns = ["question_id", "prediction", "forwards", "strict_score"]
    return {
        path.relative_to(out).parent: pl.read_parquet(path, columns=columns).to_dicts()
        for path in sorted(out.rglob("predictions.parquet"))
    }


def test_every_cell_has_answers_scores_and_its_cost(bench, whole):
    plan = plan_comparison(bench_spec(bench))
    assert list(whole.cells) == list(plan.cells)
    assert len(plan.cells) == 2 * 2 * 2
    table = pl.read_parquet(whole.out / "cells.parquet")
    assert table.height == 8
    assert set(table["seed"]) == {0, 1}
    for row in table.iter_rows(named=True):
        assert row["answers"] == 6
        assert 1 <= row["forwards_per_answer"] <= 3
        assert 0 < row["seconds_per_answer"] < 60
        assert 0 <= row["open_strict"] <= 1
        assert 0 <= row["words"] <= 1
    findings = pl.read_parquet(whole.out / "findings.parquet")
    assert {"open_strict", "closed_strict", "open_reference", "closed_reference", "words", "chexbert"} == set(
        findings["metric"]
    )
    absent = findings.filter(pl.col("metric") == "chexbert")
    assert absent["absent"].unique().to_list() == ["its files are not here"]
    assert absent["value"].null_count() == absent.height == 4
    page = (whole.out / "tables.md").read_text()
    assert "chexbert is absent: its files are not here" in page
    assert "## Every cell" in page
    assert "6 questions about 3 images" in page
    assert (whole.out / "tables.tex").read_text().count(r"\begin{tabular}") == page.count("## ") - 1


def test_the_tables_as_data_are_those_of_the_page(bench, whole):
    tables = read_comparison_tables(whole.out)
    page = (whole.out / "tables.md").read_text()
    titles = [title.replace("\\", "") for title in re.findall("^## (.*)$", page, re.MULTILINE)]
    assert titles == [grid.title for grid in tables.tables]
    assert (tables.title, tables.adapter, tables.decoding) == (bench_spec(bench).title, "LoRA", "greedy")
    assert tables.data_use == "public"
    assert list(tables.warnings) == whole.summary()["warnings"]
    shown = comparison_page(whole.out)
    assert sum(len(section.tables) for section in shown.sections) == len(tables.tables)
    drawn = [figure.name for figure in shown.figures]
    kinds = ("strict", "reports", "reference")
    assert drawn == [*(f"{name}-tiny-{kind}" for kind in kinds for name in ("values", "differences")), "cost-tiny"]


def test_cut_off_answers_are_counted_and_warned_of(whole):
    """Three tokens are too few for a student that was hardly trained."""
    table = pl.read_parquet(whole.out / "cells.parquet")
    for row in table.iter_rows(named=True):
        cell = Path("cells", row["student"], row["adapter"], row["decoding"], row["data"], f"seed-{row['seed']}")
        said = pl.read_parquet(whole.out / cell / "predictions.parquet")["finish"].to_list()
        assert (row["empty_answers"], row["cut_off_answers"]) == (said.count("empty"), said.count("length"))
    assert table["cut_off_answers"].max() > 0
    warnings = whole.summary()["warnings"]
    assert any("answers were cut off at max_new_tokens 3" in line for line in warnings)
    page = (whole.out / "tables.md").read_text()
    assert page.count("warning: ") == len(warnings)


def test_intervals_from_few_images_are_marked_and_warned_of(whole):
    page = (whole.out / "tables.md").read_text()
    intervals = re.findall(r"\[-?\d+\.\d, -?\d+\.\d\](.?)", page)
    assert intervals
    assert set(intervals) == {"\u2021"}
    assert re.search("\u2021: from fewer than 10 images with scored answers .noise (open )?[0-3]", page)
    assert any("the questions are about 3 images, fewer than 10" in line for line in whole.summary()["warnings"])


def test_seeds_are_other_trainings_and_other_chances(whole):
    found = predictions(whole.out)
    by_cell = {str(key): [row["prediction"] for row in rows] for key, rows in found.items()}
    for adapter in ("LoRA", "MEDALIGN"):
        for decoding in ("greedy", "warm"):
            first, second = (by_cell[f"cells/tiny/{adapter}/{decoding}/noise/seed-{seed}"] for seed in (0, 1))
            assert first != second
    runs = [json.loads(path.read_text()) for path in whole.out.rglob("run.json")]
    assert {run["decoding"]["max_new_tokens"] for run in runs} == {3}
    assert {run["template"] for run in runs} == {"vicuna_v1"}
    assert {run["decoding"]["settings"].get("seed") for run in runs} == {0, 1, None}
    assert len({run["adapter_fingerprint"] for run in runs}) == 4


def test_each_student_is_loaded_once(bench, tmp_path, monkeypatch):
    loaded = []
    load = module.load_student
    monkeypatch.setattr(module, "load_student", lambda *a, **k: loaded.append(k["adapter"].name) or load(*a, **k))
    data = [{"name": name, "manifest": str(bench / "manifest.parquet"), "limit": 2} for name in ("one", "two")]
    run_comparison(bench_spec(bench, data=data), tmp_path / "out", [], Silent(), device="cpu")
    assert loaded == ["lora-0", "lora-1", "medalign-0", "medalign-1"]
    loaded.clear()
    report = run_comparison(bench_spec(bench, data=data), tmp_path / "out", [], Silent(), device="cpu", resume=True)
    assert loaded == []
    assert report.answered == 0


@pytest.mark.parametrize("batches", [1, 4, 5])
def test_an_interrupted_comparison_goes_on_to_the_same_result(bench, whole, tmp_path, batches):
    """In a first cell, between two cells, and between two loadings: each cell is two batches."""
    out = tmp_path / "out"
    with pytest.raises(Killed):
        run_comparison(bench_spec(bench), out, [], KillAfter(batches), device="cpu")
    claimed = out / plan_comparison(bench_spec(bench)).cells[-1].folder
    claimed.mkdir(parents=True, exist_ok=True)
    (claimed / "run.json").unlink(missing_ok=True)
    temporary_path(claimed / "run.json").touch()  # a kill while the last cell's folder was claimed
    report = run_comparison(bench_spec(bench), out, [WORDS, LACKING], Silent(), device="cpu", resume=True)
    assert report.answered == 8 - batches // 2
    assert [p.name for p in out.rglob("answers.jsonl")] == []
    words = pl.col("metric") == "words"
    ours, expected = (pl.read_parquet(path / "findings.parquet").filter(words) for path in (out, whole.out))
    assert ours.equals(expected)
    assert predictions(out) == predictions(whole.out)


def test_after_kill_9_it_goes_on(bench, whole, tmp_path, forks):
    spec = write_spec(tmp_path / "spec.yaml", bench_values(bench))
    (done,) = forks.run(Path(__file__).parents[3] / "killed_comparison.py", spec, tmp_path / "out", 3)
    assert done.code == -9, done.stderr
    report = run_comparison(bench_spec(bench), tmp_path / "out", [], Silent(), device="cpu", resume=True)
    assert report.answered == 7
    assert len(predictions(tmp_path / "out")) == 8
    assert (
        pl.read_parquet(tmp_path / "out" / "cells.parquet")
        .drop("seconds_per_answer")
        .equals(pl.read_parquet(whole.out / "cells.parquet").drop("seconds_per_answer", "words"))
    )


def test_a_specification_that_changed_is_refused_with_both_values(bench, whole, tmp_path):
    changed = bench_spec(
        bench,
        max_new_tokens=4,
        decodings=["greedy", {"name": "warm", "method": "nucleus", "settings": {"temperature": 1.2}}, "beam"],
    )
    with pytest.raises(InputError) as caught:
        run_comparison(changed, whole.out, [], Silent(), device="cpu", resume=True)
    message = str(caught.value)
    assert "data.noise.max_new_tokens: recorded 3, now 4" in message
    assert "decodings.beam: recorded nothing, now a record of " in message
    assert "decodings.warm.temperature: recorded 1.5, now 1.2\n" in message
    assert "Restore these settings in the comparison file, or start" in message
    assert "decodings.greedy" not in message
    assert "students" not in message


def test_an_adapter_that_was_trained_again_is_another_comparison(bench, whole, tmp_path):
    values = bench_values(bench)
    values["students"][0]["adapters"][1]["paths"].reverse()
    with pytest.raises(
        InputError, match=r"students.tiny.adapters.MEDALIGN: recorded .*, now .*(?s:.*)Restore the students"
    ):
        run_comparison(bench_spec(bench, **values), whole.out, [], Silent(), device="cpu", resume=True)


def test_an_undecodable_image_is_refused_before_a_folder_is_claimed(bench, tmp_path):
    """A folder would refuse the run with the manifest that was repaired."""
    manifest = Manifest.read(bench / "manifest.parquet")
    first = pl.int_range(pl.len()) == 0
    frame = manifest.frame.with_columns(pl.when(~first).then(pl.col("pixel_hash")))
    Manifest(frame, manifest.root, manifest.source).write(tmp_path / "cut.parquet")
    spec = bench_spec(bench, data=[{"name": "noise", "manifest": str(tmp_path / "cut.parquet")}])
    with pytest.raises(InputError, match="could not be decoded when it was made"):
        run_comparison(spec, tmp_path / "out", [], Silent(), device="cpu")
    assert not (tmp_path / "out").exists()


def test_folders_in_use_are_left_alone(bench, whole, tmp_path):
    with pytest.raises(InputError, match="already contains a comparison"):
        run_comparison(bench_spec(bench), whole.out, [], Silent(), device="cpu")
    (tmp_path / "file").touch()
    for resume in (False, True):
        with pytest.raises(InputError, match="exists and is not a comparison"):
            run_comparison(bench_spec(bench), tmp_path, [], Silent(), device="cpu", resume=resume)
    with pytest.raises(InputError, match="has no comparison"):
        reanalyze_comparison(bench_spec(bench), tmp_path, [], Silent())


def test_reanalysis_needs_no_student_and_takes_other_metrics_and_baselines(bench, whole, tmp_path, monkeypatch):
    out = tmp_path / "moved"
    shutil.copytree(whole.out, out)
    values = bench_values(bench)
    values["students"][0]["path"] = str(tmp_path / "gone")
    for adapter in values["students"][0]["adapters"]:
        adapter["paths"] = [str(tmp_path / f"gone-{seed}") for seed in (0, 1)]
    monkeypatch.delattr(module, "load_student")
    spec = bench_spec(bench, **values | {"baseline": {"adapter": "MEDALIGN", "decoding": "warm"}})
    report = reanalyze_comparison(spec, out, [WORDS], Silent())
    table = pl.read_parquet(out / "findings.parquet")
    kept = ["adapter", "decoding", "metric", "value", "low", "high"]
    present = pl.read_parquet(whole.out / "findings.parquet").filter(pl.col("absent").is_null())
    assert table.select(kept).equals(present.select(kept))
    assert table.filter(pl.col("difference").is_null()).select("adapter", "decoding").unique().rows() == [
        ("MEDALIGN", "warm")
    ]
    assert report.answered == 0
    metrics = json.loads(next(out.rglob("metrics.json")).read_text())
    assert list(metrics["reports"]) == ["words"]


def test_reanalysis_of_an_unfinished_or_other_comparison_is_refused(bench, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole.out, out)
    fewer = bench_spec(bench, data=[bench_values(bench)["data"][0] | {"limit": 2}])
    with pytest.raises(InputError, match=r"data.noise.questions: recorded 6, now 2(?s:.*)Restore the manifest"):
        reanalyze_comparison(fewer, out, [], Silent())
    (first, *_) = plan_comparison(bench_spec(bench)).cells
    (out / first.folder / "metrics.json").unlink()
    with pytest.raises(InputError, match="1 of 8 cells are not finished, first: tiny, LoRA, greedy, noise, seed 0"):
        reanalyze_comparison(bench_spec(bench), out, [], Silent())


def test_a_training_is_counted_once(bench, tmp_path):
    """Twice the same folder, a copy of it elsewhere, one folder as two adapters; before any answer is given."""
    shutil.copytree(bench / "adapters" / "lora-0", tmp_path / "copy")
    first, copy = str(bench / "adapters" / "lora-0"), str(tmp_path / "copy")
    other = [str(bench / "adapters" / "medalign-0"), str(bench / "adapters" / "medalign-1")]
    for lora, medalign in (([first, first], other), ([first, copy], other), ([first], [first]), ([first], [copy])):
        values = bench_values(bench)
        values["students"][0]["adapters"] = [
            {"name": "LoRA", "paths": lora},
            {"name": "MEDALIGN", "paths": medalign},
        ]
        with pytest.raises(InputError, match=r"LoRA \(.*lora-0\) and .* are the same training \(digest \w{12}\)"):
            run_comparison(bench_spec(bench, **values), tmp_path / "out", [], Silent(), device="cpu")
        assert not (tmp_path / "out").exists()


def test_the_same_weights_at_another_scale_are_another_training(bench, tmp_path):
    shutil.copytree(bench / "adapters" / "lora-0", tmp_path / "copy")
    config = tmp_path / "copy" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 64}))
    values = bench_values(bench)
    values["students"][0]["adapters"][0]["paths"][1] = str(tmp_path / "copy")
    before, after = plan_comparison(bench_spec(bench)), plan_comparison(bench_spec(bench, **values))
    assert before.identity["students.tiny.adapters.LoRA"] != after.identity["students.tiny.adapters.LoRA"]
    settings = after.identity["students.tiny.adapter_settings.LoRA"]
    assert [found["lora"]["alpha"] for found in settings] == [8, 64]


def test_a_comparison_that_counted_a_training_twice_is_not_scored_again(bench, whole, tmp_path):
    """What an earlier release let through."""
    out = tmp_path / "out"
    shutil.copytree(whole.out, out)
    path = out / "comparison.json"
    values = json.loads(path.read_text())
    for name in ("adapters", "adapter_settings"):
        found = values["answers"][f"students.tiny.{name}.LoRA"]
        values["answers"][f"students.tiny.{name}.LoRA"] = [found[0], found[0]]
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="are the same training"):
        reanalyze_comparison(bench_spec(bench), out, [], Silent())


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    "key", ["adapter_fingerprint", "base_fingerprint", "dtype", "batch_size", "medalign", "questions", "prompt"]
)
def test_a_cell_is_checked_for_who_made_it(bench, whole, tmp_path, monkeypatch, key, resume):
    out = tmp_path / "out"
    shutil.copytree(whole.out, out)
    cell = plan_comparison(bench_spec(bench)).cells[3]
    path = out / cell.folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: "another"}))
    monkeypatch.delattr(module, "load_student")
    with pytest.raises(InputError, match=rf"does not belong to the cell {cell}: {key}: recorded 'another'"):
        _again(bench_spec(bench), out, resume)


def _again(spec, out, resume):
    if resume:
        return run_comparison(spec, out, [], Silent(), device="cpu", resume=True)
    return reanalyze_comparison(spec, out, [], Silent())


def test_answers_of_another_cell_are_not_taken(bench, whole, tmp_path):
    """The table alone was copied; run.json beside it is the cell's own."""
    out = tmp_path / "out"
    shutil.copytree(whole.out, out)
    first, *_, last = plan_comparison(bench_spec(bench)).cells
    shutil.copy(out / last.folder / "predictions.parquet", out / first.folder)
    with pytest.raises(InputError, match=r"has answers of a different run from .*adapter_fingerprint"):
        run_comparison(bench_spec(bench), out, [], Silent(), device="cpu", resume=True)


def test_a_base_that_is_asked_in_another_way_is_another_comparison(bench, whole, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(bench / "student", base)
    values = bench_values(bench)
    values["students"][0]["path"] = str(base)
    spec = bench_spec(bench, **values)
    out = tmp_path / "out"
    shutil.copytree(whole.out, out)
    run_comparison(spec, out, [], Silent(), device="cpu", resume=True)
    (base / "generation_config.json").write_text('{"eos_token_id": [2, 9]}')
    with pytest.raises(InputError, match=r"students.tiny.prompt.end_tokens: recorded \[2\], now \[2, 9\]"):
        run_comparison(spec, out, [], Silent(), device="cpu", resume=True)


def test_a_cell_that_holds_another_evaluation_is_not_taken(bench, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole.out, out)
    cells = plan_comparison(bench_spec(bench)).cells
    warm = next(cell for cell in cells if cell.decoding == "warm")
    shutil.rmtree(out / cells[0].folder)
    shutil.copytree(out / warm.folder, out / cells[0].folder)
    with pytest.raises(InputError, match="does not belong to the cell tiny, LoRA, greedy"):
        reanalyze_comparison(bench_spec(bench), out, [], Silent())


def test_what_repeats_nothing_runs_once(bench):
    values = bench_values(bench)
    alone = {"name": "MEDALIGN", "paths": [str(bench / "adapters" / "lora-0")]}
    values["students"][0]["adapters"] = [{"name": "LoRA"}, alone]
    plan = plan_comparison(bench_spec(bench, **values))
    assert [(cell.adapter, cell.decoding, cell.seed) for cell in plan.cells] == [
        (adapter, *rest) for adapter in ("LoRA", "MEDALIGN") for rest in (("greedy", 0), ("warm", 0), ("warm", 1))
    ]
    assert plan.templates == {"tiny": "vicuna_v1"}, "the base alone is asked as its adapters are"


def test_kinds_of_questions_are_chosen(bench):
    data = [bench_values(bench)["data"][0] | {"answer_types": ["report", "open"], "limit": 3}]
    (asked,) = plan_comparison(bench_spec(bench, data=data)).questions.values()
    assert asked.frame["answer_type"].to_list() == ["open", "open", "report"]


def test_problems_are_found_before_anything_is_loaded(bench, tmp_path):
    bad = ["greedy", {"name": "x", "method": "vdc"}, {"method": "nucleus", "settings": {"seed": 1, "a": 2}}]
    with pytest.raises(SettingsError) as caught:
        plan_comparison(bench_spec(bench, decodings=bad))
    assert "x: unknown decoding method 'vdc'" in str(caught.value)
    assert "nucleus: remove its seed" in str(caught.value)
    assert "no setting 'a'" in str(caught.value)
    with pytest.raises(InputError, match="has no split"):
        plan_comparison(bench_spec(bench, data=[bench_values(bench)["data"][0] | {"split": "val"}]))
    with pytest.raises(InputError, match="no question in split test whose answer is choice"):
        plan_comparison(bench_spec(bench, data=[bench_values(bench)["data"][0] | {"answer_types": ["choice"]}]))
    values = bench_values(bench)
    values["students"][0]["adapters"][1]["paths"][1] = str(tmp_path)
    with pytest.raises(InputError, match="not a finished adapter"):
        plan_comparison(bench_spec(bench, **values))


def test_adapters_with_different_prompts_are_not_compared_unasked(bench, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(bench / "adapters" / "medalign-1", other)
    record = json.loads((other / "medalign.json").read_text())
    (other / "medalign.json").write_text(json.dumps(record | {"template": "plain"}))
    values = bench_values(bench)
    values["students"][0]["adapters"][1]["paths"][1] = str(other)
    with pytest.raises(SettingsError, match=r"different prompt templates \(plain, vicuna_v1\)"):
        plan_comparison(bench_spec(bench, **values))
    values["students"][0]["template"] = "plain"
    assert plan_comparison(bench_spec(bench, **values)).templates == {"tiny": "plain"}


def test_the_command(bench, whole, tmp_path):
    spec = write_spec(tmp_path / "spec.yaml", bench_values(bench))
    runner = CliRunner()
    arguments = ["student", "compare", str(spec), "--out", str(whole.out)]
    done = runner.invoke(app, [*arguments, "--reanalyze", "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert len(shown["cells"]) == 8
    assert shown["answered"] == 0
    done = runner.invoke(app, [*arguments, "--reanalyze"])
    assert "tiny: answers to questions, `strict` scores" in done.stdout
    assert runner.invoke(app, [*arguments, "--reanalyze", "--resume"]).exit_code == 2
    assert runner.invoke(app, arguments).exit_code == 3

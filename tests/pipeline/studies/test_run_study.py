"""`medalign study` from end to end, and what it refuses; work that takes no time where training does not matter."""

import json
import shutil

import polars as pl
import pytest
from medalign.cli import app
from medalign.errors import InputError, SettingsError
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.reports.runs.run_report import write_run_report
from medalign.pipeline.reports.studies.study_page import study_page
from medalign.pipeline.studies.run_study import StudyRequest, run_study
from medalign.pipeline.studies.study_claim import digest_spec
from medalign.pipeline.studies.study_plan import plan_study
from medalign.pipeline.studies.study_results import DIFFERENCES_FILE, RUNS_FILE
from medalign.pipeline.studies.study_spec import study_of
from medalign.pipeline.studies.units import unit_queue
from medalign.pipeline.studies.units.unit_folder import RECORD_FILE, try_lock
from medalign.progress import Silent
from study_labs import make_study_lab, quick_work, study_values, with_trials
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_study_lab(tmp_path_factory.mktemp("study"))


@pytest.fixture
def done(monkeypatch):
    return quick_work(monkeypatch)


@pytest.fixture
def linked(lab):
    """A link beside the images that leads to the manifest, and later to one with other answers."""
    link, changed = lab / "linked.parquet", lab / "changed.parquet"
    link.symlink_to(lab / "manifest.parquet")
    manifest = Manifest.read(lab / "manifest.parquet")
    Manifest(manifest.frame.with_columns(answer=pl.lit("other")), manifest.root, "noise").write(changed)
    yield link
    link.unlink()
    changed.unlink()


def lead_elsewhere(link):
    link.unlink()
    link.symlink_to(link.with_name("changed.parquet"))


def run(values, out, **options):
    return run_study(StudyRequest(spec=study_of(values), device="cpu", **options), out, Silent())


def saved(out, name):
    return pl.read_parquet(out / name)


def kinds(units):
    return [unit.KIND for unit in units]


def test_a_study_trains_and_tests_once(lab, tmp_path, monkeypatch):
    values = study_values(lab) | {"seeds": [0], "baseline": "base", "comparisons": []}
    values["arms"] = [values["arms"][0], values["arms"][2]]
    first = run(values, tmp_path)
    assert first.done == 1 + 1 + 1 + 2  # align, merge, training, two answers
    assert first.summary()["test_read_at"] is None
    assert not list(tmp_path.rglob("checkpoint-*"))
    again = run(values, tmp_path, read_test=True)
    assert again.done == 2
    monkeypatch.setattr("medalign.pipeline.studies.units.work_units.load_student", None)
    assert run(values, tmp_path, read_test=True).values == again.values
    assert saved(tmp_path, RUNS_FILE)["part"].to_list() == ["develop", "develop", "test", "test"]
    over_seeds = saved(tmp_path, DIFFERENCES_FILE).filter(pl.col("resampling") == "seeds")
    assert over_seeds["low"].to_list() == [None, None], "one seed has no interval over seeds"


def test_a_killed_study_continues_and_nothing_is_done_twice(lab, tmp_path, done):
    """Killed after the third unit; later after a training, and before its record was written."""
    values = with_trials(study_values(lab))
    run(values, tmp_path / "whole")
    units = [unit.digest for unit in done]
    assert len(set(units)) == len(units)
    done.clear()

    class Kill(Silent):
        left = 3

        def note(self, text):
            self.left -= " left)" in text
            if not self.left:
                raise SystemExit

    with pytest.raises(SystemExit):
        run_study(StudyRequest(spec=study_of(values), device="cpu"), tmp_path / "killed", Kill())
    with pytest.raises(InputError, match="has no results yet: run `medalign study` with the same specification"):
        write_run_report(tmp_path / "killed", Silent())
    run(values, tmp_path / "killed")
    assert sorted(unit.digest for unit in done) == sorted(units)
    unit = next(unit for unit in done if unit.KIND == "train")
    (unit.folder(tmp_path / "killed") / RECORD_FILE).unlink()
    done.clear()
    run(values, tmp_path / "killed")
    assert [again.digest for again in done] == [unit.digest]
    for name in (RUNS_FILE, DIFFERENCES_FILE):
        assert saved(tmp_path / "killed", name).equals(saved(tmp_path / "whole", name))


def test_a_task_does_its_part_first_and_then_what_is_left(lab, tmp_path, done):
    values = study_values(lab)
    run(values, tmp_path / "one")
    one = [unit.digest for unit in done]
    done.clear()
    run(values, tmp_path / "two", task="1/2")
    assert [unit.digest for unit in done] != one
    assert sorted(unit.digest for unit in done) == sorted(one)
    for name in (RUNS_FILE, DIFFERENCES_FILE):
        assert saved(tmp_path / "two", name).equals(saved(tmp_path / "one", name))


def test_a_unit_of_another_process_is_waited_for_and_not_done_twice(lab, tmp_path, done, monkeypatch):
    """The other process is this one: it holds the lock until the study waits for it, and then has done the unit."""
    values = study_values(lab)
    run(values, tmp_path)
    busy, *_ = (unit for unit in done if unit.KIND == "align")
    shutil.copytree(busy.folder(tmp_path), tmp_path.with_suffix(".done"))
    shutil.rmtree(tmp_path / "units")
    done.clear()
    waited = []

    def other_finishes(seconds):
        waited.append(len(done))
        shutil.copytree(tmp_path.with_suffix(".done"), busy.folder(tmp_path), dirs_exist_ok=True)
        lock.__exit__(None, None, None)

    monkeypatch.setattr(unit_queue, "sleep", other_finishes)
    (tmp_path / "units").mkdir()
    lock = try_lock(busy.folder(tmp_path))
    assert lock.__enter__()
    run(values, tmp_path)
    assert len(waited) == 1
    assert waited[0] > 4, "everything else was done before"
    assert busy.digest not in [unit.digest for unit in done]


def test_the_best_trial_on_the_development_questions_is_used(lab, tmp_path, done):
    run(with_trials(study_values(lab)), tmp_path)
    choices = {choice["arm"]: choice for choice in json.loads((tmp_path / "trials.json").read_text())["choices"]}
    assert choices.keys() == {"LoRA", "align + MEDALIGN"}
    for arm, choice in choices.items():
        means = [trial["mean"] for trial in choice["trials"]]
        assert choice["chosen"] == 1 + means.index(max(means))
        rate = choice["trials"][choice["chosen"] - 1]["train"]["training.learning_rate"]
        finals = [unit for unit in done if unit.KIND == "train" and f"{arm}, seed 1" in unit.label]
        assert [unit.settings.training.learning_rate for unit in finals] == [rate]


def test_choices_of_another_study_are_taken(lab, tmp_path, done):
    values = with_trials(study_values(lab))
    with pytest.raises(InputError, match=r"has no trials\.json: run that study first"):
        run(study_values(lab) | {"tuning": {"study": str(tmp_path / "first"), "regime": "noise"}}, tmp_path / "second")
    run(values, tmp_path / "first")
    first = {unit.digest for unit in done if "seed 7" not in unit.label}
    done.clear()
    run(study_values(lab) | {"tuning": {"study": str(tmp_path / "first"), "regime": "noise"}}, tmp_path / "third")
    assert {unit.digest for unit in done} == first
    other = study_values(lab)
    other["arms"][1]["name"] = other["baseline"] = other["comparisons"][0]["against"] = "LoRA of rank 2"
    with pytest.raises(InputError, match="chose no trial of LoRA of rank 2 in regime 'noise'; it has LoRA, align"):
        run(other | {"tuning": {"study": str(tmp_path / "first"), "regime": "noise"}}, tmp_path / "fourth")


def test_the_test_questions_are_read_once(lab, tmp_path, done):
    values = study_values(lab)
    with pytest.raises(InputError, match=r"not read: \d+ units of the development are unfinished.*without --read-test"):
        run(values, tmp_path, read_test=True)
    assert not (tmp_path / "test-lock.json").exists()
    run(values, tmp_path)
    assert not any("test" in unit.label for unit in done)
    report = run(values, tmp_path, read_test=True)
    lock = json.loads((tmp_path / "test-lock.json").read_text())
    assert lock["read_at"] == report.values["test_read_at"]
    assert lock["spec_sha256"] == digest_spec(study_of(values))
    done.clear()
    assert run(values, tmp_path, read_test=True).values == report.values
    assert not done
    changed = values | {"seeds": [0, 1, 2]}
    both = rf"{digest_spec(study_of(values))}, but this one is {digest_spec(study_of(changed))}"
    with pytest.raises(InputError, match=both):
        run(changed, tmp_path)


@pytest.mark.parametrize("part", ["develop", "test"])
def test_a_primary_metric_that_scores_nothing_is_refused_before_work_and_lock(lab, tmp_path, done, part):
    spec, out = study_values(lab), tmp_path / "study"
    spec["regimes"][0][part] |= {"answer_types": ["report"]}
    manifest = Manifest.read(lab / "manifest.parquet")
    kinds = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("report")).otherwise(pl.lit("open"))
    Manifest(manifest.frame.with_columns(answer_type=kinds), manifest.root, "noise").write(tmp_path / "kinds.parquet")
    for name in ("train", "develop", "test"):
        spec["regimes"][0][name]["manifest"] = str(tmp_path / "kinds.parquet")
    spec["regimes"][0]["train"]["answer_types"] = None
    message = rf"regimes\.noise\.{part}: all_strict, the primary metric, scores no question of"
    with pytest.raises(InputError, match=message):
        plan_study(study_of(spec), out, None, "cpu", Silent())
    if part == "develop":
        with pytest.raises(InputError, match=message):
            run(spec, out)
        assert not done
    else:
        run(spec, out)
        with pytest.raises(InputError, match=message):
            run(spec, out, read_test=True)
        assert not (out / "test-lock.json").exists()


def test_a_stopped_test_is_completed_and_changed_data_are_refused(lab, linked, tmp_path, done):
    values, out = study_values(lab), tmp_path / "out"
    values["regimes"][0]["test"]["manifest"] = str(linked)
    run(values, out)
    report = run(values, out, read_test=True)
    (out / "study-results.json").unlink()
    unit = next(unit for unit in done if unit.label.endswith("seed 1, test"))
    (unit.folder(out) / RECORD_FILE).unlink()
    done.clear()
    assert run(values, out).values == report.values
    assert [again.digest for again in done] == [unit.digest]
    (out / "study-results.json").unlink()
    lead_elsewhere(linked)
    with pytest.raises(InputError, match="a base, a store, questions or images have changed since"):
        run(values, out, read_test=True)


@pytest.mark.parametrize(
    ("part", "read_test", "trials"),
    [("train", False, True), ("train", True, False), ("test", True, True), ("test", False, False)],
)
def test_data_that_changed_after_the_test_are_refused_before_any_work(
    lab, linked, tmp_path, done, part, read_test, trials
):
    values = study_values(lab)
    values["regimes"][0][part]["manifest"] = str(linked)
    values, out = with_trials(values) if trials else values, tmp_path / "out"
    run(values, out)
    run(values, out, read_test=True)
    lead_elsewhere(linked)
    done.clear()
    with pytest.raises(InputError, match="a base, a store, questions or images have changed since"):
        run(values, out, read_test=read_test)
    assert not done


def test_other_choices_of_trials_after_the_test_are_refused(lab, tmp_path, done):
    values, path = with_trials(study_values(lab)), tmp_path / "trials.json"
    run(values, tmp_path)
    run(values, tmp_path, read_test=True)
    whole = json.loads(path.read_text())
    for chosen, message in (
        (3 - whole["choices"][0]["chosen"], "have changed since, or trials.json. Restore them"),
        (0, r"chosen is 0, but the trials are 1 to 2"),
        (3, r"chosen is 3, but the trials are 1 to 2"),
    ):
        changed = json.loads(path.read_text())
        changed["choices"][0]["chosen"] = chosen
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            run(values, tmp_path, read_test=True)


@pytest.mark.parametrize("read_test", [True, False])
def test_a_test_lock_that_is_missing_is_noticed(lab, tmp_path, done, read_test):
    values = study_values(lab)
    run(values, tmp_path)
    run(values, tmp_path, read_test=True)
    (tmp_path / "test-lock.json").unlink()
    with pytest.raises(InputError, match=r"test-lock\.json is missing, but 5 units answered test questions, such as"):
        run(values, tmp_path, read_test=read_test)


@pytest.mark.parametrize("kind", ["align", "merge", "train"])
@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_files_of_a_finished_unit_that_changed_are_not_used(lab, tmp_path, done, kind, change):
    values = study_values(lab)
    run(values, tmp_path)
    changed = next(unit for unit in done if kind == unit.KIND)
    file = changed.run_folder(tmp_path) / "result.txt"
    after = [unit for unit in done if changed in unit.needs]
    for unit in after:
        (unit.folder(tmp_path) / RECORD_FILE).unlink()
    (changed.run_folder(tmp_path) / "report.html").write_text("added later")
    done.clear()
    run(values, tmp_path)
    assert {unit.digest for unit in done} == {unit.digest for unit in after}
    for unit in after:
        (unit.folder(tmp_path) / RECORD_FILE).unlink()
    file.write_text("another") if change == "replaced" else file.unlink()
    message = "was changed after" if change == "replaced" else "No such file"
    with pytest.raises(InputError, match=rf"{file}.*{message}.*or remove {changed.folder(tmp_path)} and run the study"):
        run(values, tmp_path)


def test_answers_that_changed_are_not_compared(lab, tmp_path, done):
    values = study_values(lab)
    run(values, tmp_path)
    one, other, *_ = (unit.run_folder(tmp_path) / "predictions.parquet" for unit in done if unit.KIND == "answer")
    shutil.copy(one, other)
    with pytest.raises(InputError, match=f"{other} was changed after answer of"):
        run(values, tmp_path)


def test_notes_count_what_is_left_of_each_stage(lab, tmp_path, done):
    notes = []

    class Notes(Silent):
        def note(self, text):
            notes.append(text)

    run_study(StudyRequest(spec=study_of(with_trials(study_values(lab))), device="cpu"), tmp_path, Notes())
    assert [note.partition("s, ")[2] for note in notes if " 0 units" in note] == [
        "0 units of the trials left)",
        "0 units of the development left)",
    ]


def test_seeds_of_the_tuning_that_are_also_compared_are_reported(lab, tmp_path, done):
    values = with_trials(study_values(lab)) | {"tuning": {"seeds": [7, 1]}}
    warning = "seeds and tuning.seeds share 1: the chosen trials fit these training sets"
    assert any(text.startswith(warning) for text in run(values, tmp_path).values["warnings"])
    plan = plan_study(study_of(values), None, None, "cpu", Silent()).summary()
    assert [text.split(":")[0] for text in plan["warnings"]] == [
        "with 2 seeds, p is at least 0.5, and intervals over seeds are wide or missing",
        "seeds and tuning.seeds share 1",
    ]
    enough = study_of(study_values(lab) | {"seeds": list(range(6))})
    assert plan_study(enough, None, None, "cpu", Silent()).summary()["warnings"] == []


def test_before_the_test_a_specification_may_change_and_keeps_what_it_shares(lab, tmp_path, done):
    values = study_values(lab)
    run(values, tmp_path)
    before = {unit.digest for unit in done}
    done.clear()
    run(values | {"seeds": [1, 0, 5]}, tmp_path)
    assert done
    assert not before & {unit.digest for unit in done}
    study = json.loads((tmp_path / "study.json").read_text())
    assert [entry["spec_sha256"] for entry in study["earlier"]] == [digest_spec(study_of(values))]


def shared_images(lab, done):
    """Test questions are the first six of the training split, of which each seed draws six."""
    frame = Manifest.read(lab / "manifest.parquet").frame
    test = set(frame.filter(pl.col("split") == "train").head(6)["image_hash"].drop_nulls())
    drawn = [unit.questions.manifest.frame for unit in done if unit.KIND == "train" and "seed 7" not in unit.label]
    train = {name for frame in drawn for name in frame["image_hash"].drop_nulls()}
    return f"noise: {len(test & train)} images of {len(test)} of the test questions are among those of training sets"


def test_the_page_shows_every_comparison_and_names_the_split(lab, tmp_path, done):
    values = with_trials(study_values(lab))
    run(values, tmp_path)
    page = study_page(tmp_path)
    assert page.lead.startswith("Development only: the test questions were not read. All strict on the development")
    titles = [section.title for section in page.sections]
    assert titles[:3] == ["Warnings", "Development questions: primary comparisons", "Development questions: values"]
    few, test, shared = page.sections[0].text
    assert few.startswith("with 2 seeds, p is at least 0.5, and intervals over seeds are wide or missing: use 6 seeds")
    assert test.startswith("noise, test: the questions are about 4 images, fewer than 10: intervals are widened")
    assert shared == shared_images(lab, done)
    (primary,) = page.sections[1].tables
    differences = saved(tmp_path, DIFFERENCES_FILE).filter(pl.col("primary"))
    assert primary.rows[0][:5] == [
        "noise",
        "align + MEDALIGN",
        "LoRA",
        "all strict",
        f"{differences['difference'][0]:+.3f}",
    ]
    assert [figure.name for figure in page.figures] == ["values-develop-noise", "differences-develop-noise"]
    (trials,) = next(section for section in page.sections if section.title == "Trials").tables
    assert len(trials.rows) == 4
    run(values, tmp_path, read_test=True)
    assert "on the test questions" in study_page(tmp_path).lead


def test_folders_of_others_and_torchrun_are_refused(lab, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and has no study"):
        run(study_values(lab), tmp_path)
    with pytest.raises(InputError, match=r"notes\.txt is a file: pass another --out"):
        run(study_values(lab), tmp_path / "notes.txt")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(SettingsError, match="--task I/N once for each process"):
        run(study_values(lab), tmp_path / "out")


def test_digests_cover_settings_that_matter_and_no_path(lab, tmp_path, done):
    def digests(values, name):
        done.clear()
        run(values, tmp_path / name)
        return {kind: {unit.digest for unit in done if kind == unit.KIND} for kind in kinds(done)}

    here = digests(study_values(lab), "here")
    shutil.copytree(lab, tmp_path / "elsewhere")
    values = study_values(tmp_path / "elsewhere")
    values["settings"]["train"]["training"]["logging_steps"] = 2
    assert digests(values, "moved") == here
    values["settings"]["train"]["training"]["learning_rate"] = 0.02
    changed = digests(values, "rate")
    assert (changed["align"], changed["merge"]) == (here["align"], here["merge"])
    assert not changed["train"] & here["train"]
    assert len(changed["answer"] & here["answer"]) == 1  # the base's


def test_the_command_says_what_is_next(lab, tmp_path, done, monkeypatch):
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(study_values(lab)))
    words = ["study", str(spec), "--out", str(tmp_path / "out"), "--device", "cpu"]
    monkeypatch.setenv("MEDALIGN_NO_REPORT", "1")
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert f"--out {tmp_path / 'out'} --read-test` to answer the test questions, once" in " ".join(shown.output.split())
    shown = CliRunner().invoke(app, [*words, "--read-test", "--json"])
    assert json.loads(shown.stdout)["shown"] == "test"
    for more, said in (
        (["study", str(spec)], "--out is missing"),
        ([*words, "--card", "24GB"], "only applies to the plan"),
        ([*words, "--dry-run", "--read-test"], "are incompatible"),
        ([*words, "--task", "2/2"], "--task must be I/N"),
    ):
        refused = CliRunner().invoke(app, more)
        assert refused.exit_code == 2
        assert said in " ".join(refused.output.split())

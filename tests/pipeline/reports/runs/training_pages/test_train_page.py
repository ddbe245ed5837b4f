"""The page of a training: whether each loss fell, which weights were kept, and nothing for a killed run."""

import json

import pytest
from medalign.errors import InputError
from medalign.pipeline.reports.runs.training_pages.train_page import train_page
from run_folders import write_training

FALLS = [4.0, 3.0, 2.5, 2.0, 1.5, 1.5, 1.2, 1.0, 1.0, 0.6]
RISES = [0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3]


def log_of(evaluated=(), **terms):
    """Ten lines of training, then one line of validation for each of `evaluated`."""
    lines = [
        {"step": step, "learning_rate": 0.01 * step, "grad_norm": 1.0, "data_wait": 0.5}
        | {name: values[step - 1] for name, values in terms.items()}
        for step in range(1, 11)
    ]
    held = [{"step": 2 * number, "eval_loss": value} for number, value in enumerate(evaluated, start=1)]
    return [*lines, *held, {"step": 10, "train_loss": 99.0, "train_runtime": 5.0}]


def test_each_term_says_whether_it_fell(tmp_path):
    log = log_of(loss=FALLS, loss_lm=FALLS, loss_vis=RISES, loss_att=[0.5] * 10)
    page = train_page(write_training(tmp_path / "run", log))
    assert "total loss fell from 3.5 to 0.8" in page.lead  # means of the first and the last two of ten
    assert "visual alignment (loss_vis) rose from 0.1 to 0.3" in page.lead
    assert "attention alignment (loss_att) did not change (0.5)" in page.lead
    assert "all 8 steps are complete" in page.lead
    assert "no validation split" in page.lead
    assert page.state == "good"
    losses, loop = (figure.table for figure in page.figures)
    drawn = losses.filter(losses["panel"] == "visual alignment (loss_vis)")
    assert drawn["y"].to_list() == RISES
    assert losses["y"].max() < 99
    assert set(loop["panel"]) == {"learning rate", "gradient norm", "share of time waiting for data"}
    (waits,) = page.sections[1].text
    assert waits.startswith(
        "The run waited for data during 50\xa0% of the time: a higher training.dataloader_num_workers"
    )
    assert "class of the adapter is credentialed" in page.notice
    settings = dict(page.sections[-1].tables[0].rows)
    assert settings["alignment.beta"] == 0.1


def test_a_total_of_one_term_is_not_drawn_twice(tmp_path):
    page = train_page(write_training(tmp_path / "run", log_of(loss=FALLS, loss_lm=FALLS)))
    assert page.figures[0].table["panel"].unique().to_list() == ["answers (loss_lm)"]


@pytest.mark.parametrize(
    ("evaluated", "best", "expected", "state"),
    [
        ((2.0, 1.0, 1.5), None, "lowest at step 4 (1), 1.5 at the end, a sign of overfitting", "bad"),
        ((2.0, 1.0, 1.5), {"step": 4, "checkpoint": "checkpoint-4"}, "the adapter is that of checkpoint-4", "good"),
        ((2.0, 1.5, 1.0), None, "1 at the end, lowest 1 (step 6); the adapter is that of the last step", "good"),
    ],
)
def test_the_validation_says_which_weights_were_kept(tmp_path, evaluated, best, expected, state):
    log = log_of(evaluated, loss=FALLS, loss_lm=FALLS)
    page = train_page(write_training(tmp_path / "run", log, best=best))
    assert expected in page.lead
    assert page.state == state


def test_losses_that_rose_are_bad_news(tmp_path):
    page = train_page(write_training(tmp_path / "run", log_of(loss_lm=FALLS[::-1])))
    assert page.state == "bad"
    assert "answers (loss_lm) rose from 0.8 to 3.5" in page.lead


def test_a_short_log_claims_nothing(tmp_path):
    run = write_training(tmp_path / "run", [{"step": 8, "loss": 1.0, "loss_lm": 1.0}])
    page = train_page(run)
    assert "Too few values" in page.lead
    assert page.state == "neutral"
    (run / "log.jsonl").unlink()
    assert train_page(run).figures == []


def test_a_run_that_was_killed_or_interrupted_has_no_page(tmp_path):
    run = write_training(tmp_path / "run", log_of(loss=FALLS))
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"interrupted": True}))
    with pytest.raises(InputError, match="is not finished"):
        train_page(run)
    (run / "summary.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        train_page(run)

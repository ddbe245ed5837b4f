"""The losses in log.jsonl, also in one that a run is still writing, and their curves on the terminal."""

import json

from medalign.pipeline.training.loss_log import read_losses, show_loss_curves

LINES = (
    {"step": 2, "loss": 3.0, "loss_lm": 2.5, "learning_rate": 1e-3, "grad_norm": 1.0},
    {"step": 2, "eval_loss": 2.0, "eval_runtime": 0.5},
    {"step": 4, "loss": 1.5, "loss_lm": 1.25},
    {"step": 4, "train_loss": 2.25},
)


def write(folder, *more):
    text = "".join(json.dumps(line) + "\n" for line in LINES) + "".join(more)
    (folder / "log.jsonl").write_text(text)
    return folder


def test_every_loss_by_step(tmp_path):
    assert read_losses(write(tmp_path)) == {
        "loss": [(2, 3.0), (4, 1.5)],
        "loss_lm": [(2, 2.5), (4, 1.25)],
        "eval_loss": [(2, 2.0)],
    }


def test_lines_that_are_not_complete_are_skipped(tmp_path):
    broken = ("{}\n", "[1]\n", '{"step": 5, "loss": NaN}\n', '{"step": null, "loss": 1}\n', '{"step": 6, "loss": 0.')
    assert read_losses(write(tmp_path, *broken)) == read_losses(write(tmp_path))
    assert read_losses(tmp_path / "missing") == {}


def test_the_curve_has_first_and_last_values_and_steps(tmp_path, capsys):
    show_loss_curves(write(tmp_path))
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "training loss: 3 at first, 1.5 at the end"
    assert lines[-1].split() == ["step", "2", "4"]
    assert "validation" not in captured.err, "one value is no curve"
    assert max(map(len, lines)) <= 80
    show_loss_curves(tmp_path / "missing")
    assert capsys.readouterr().err == ""

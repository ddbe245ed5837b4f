"""`medalign report draw`."""

import json

from command_tree import COMMANDS
from figure_examples import one_of_each
from medalign.pipeline.reports.figures.figure_files import write_figures


def test_draw_renews_the_pictures_of_a_report(tmp_path, capsys):
    write_figures(tmp_path / "figures", one_of_each()[:1])
    picture = tmp_path / "figures" / "curve.png"
    before = picture.read_bytes()
    picture.write_bytes(b"old")
    assert COMMANDS.main(["report", "draw", str(tmp_path), "--json"], standalone_mode=False) in (0, None)
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path), "pictures": ["curve.svg", "curve.png"]}
    assert picture.read_bytes() == before


def test_draw_says_what_a_folder_without_figures_lacks(tmp_path, capsys):
    assert COMMANDS.main(["report", "draw", str(tmp_path)], standalone_mode=False) == 3
    assert "has no figures" in capsys.readouterr().err

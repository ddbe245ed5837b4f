"""`medalign report draw`."""

import json

import pytest
from command_tree import COMMANDS
from figure_examples import one_of_each
from medalign.errors import InputError
from medalign.pipeline.data import saved_tables
from medalign.pipeline.reports.figures.figure_files import remove_other_figures, write_figures


def test_draw_renews_the_pictures_of_a_report(tmp_path, capsys):
    write_figures(tmp_path / "figures", one_of_each()[:1])
    picture = tmp_path / "figures" / "curve.png"
    before = picture.read_bytes()
    picture.write_bytes(b"old")
    assert COMMANDS.main(["report", "draw", str(tmp_path), "--json"], standalone_mode=False) in (0, None)
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(tmp_path / "figures"),
        "pictures": ["curve.svg", "curve.png"],
    }
    assert picture.read_bytes() == before


def test_draw_writes_pdf_beside_the_pictures_of_the_page(tmp_path, capsys):
    write_figures(tmp_path, one_of_each()[:1])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):
        line = ["report", "draw", str(tmp_path), "--format", "pdf", "--json"]
        assert COMMANDS.main(line, standalone_mode=False) in (0, None)
        assert json.loads(capsys.readouterr().out)["pictures"] == ["curve.pdf"]
        drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert drawn.pop("curve.pdf").startswith(b"%PDF-")
        assert drawn == before
    remove_other_figures(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_draw_says_what_a_folder_without_figures_lacks(tmp_path, capsys):
    assert COMMANDS.main(["report", "draw", str(tmp_path)], standalone_mode=False) == 3
    assert "has no figures" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    for name, said in (("file", "is a file, not the folder of a report"), ("missing", "does not exist")):
        assert COMMANDS.main(["report", "draw", str(tmp_path / name)], standalone_mode=False) == 3
        assert said in capsys.readouterr().err


def test_draw_names_the_report_near_a_wrong_path(tmp_path, capsys):
    report, table = tmp_path / "report", tmp_path / "report" / "data" / "manifest.parquet"
    write_figures(report / "figures", one_of_each()[:1])
    table.parent.mkdir()
    saved_tables.write(table, one_of_each()[0].table, {"format": "medalign-manifest", "version": 1})
    for wrong in (table, table.parent, report / "figures" / "curve.png", tmp_path, tmp_path / "reprot"):
        assert COMMANDS.main(["report", "draw", str(wrong)], standalone_mode=False) == 3
        assert capsys.readouterr().err.endswith(f": pass {report}\n")


def test_a_file_named_figures_is_bad_input(tmp_path, capsys):
    (tmp_path / "figures").write_text("mine")
    with pytest.raises(InputError, match="figures is a file, but figures go to a folder of this name"):
        write_figures(tmp_path / "figures", one_of_each()[:1])
    assert COMMANDS.main(["report", "draw", str(tmp_path)], standalone_mode=False) == 3
    assert "figures is a file" in capsys.readouterr().err
    assert (tmp_path / "figures").read_text() == "mine"


@pytest.mark.parametrize(
    ("verb", "module", "kept"),
    [
        ("draw", "figures.figure_files.draw_again", "figures drawn so far are replaced; run"),
        ("make", "runs.run_report.make_run_report", "figures drawn so far are replaced, report.html is not; run"),
    ],
)
def test_ctrl_c_says_what_was_replaced(tmp_path, capsys, monkeypatch, verb, module, kept):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"medalign.pipeline.reports.{module}", interrupted)
    assert COMMANDS.main(["report", verb, str(tmp_path)], standalone_mode=False) == 130
    assert f"interrupted; {kept}" in capsys.readouterr().err


WHAT_IS_NO_FIGURE = {
    "truncated": (None, "is damaged"),
    "a foreign table": ({}, "is not a figure of medalign"),
    "another format": ({"format": "medalign-grounding", "version": 1, "run": {}}, "its format is 'medalign-grounding'"),
    "of the future": ({"format": "medalign-figure", "version": 2, "layers": []}, "version 2; this medalign draws"),
    "another kind": ({"kind": "violins"}, "kind 'violins'"),
    "a path as its name": ({"name": "../x"}, "'../x' is not a figure's name"),
    "without settings": ({"settings": {}}, "cannot be drawn: its data is not that of a figure of lines: no 'log_y'"),
    "other columns": ({"kind": "points"}, "cannot be drawn: its data is not that of a figure of points"),
}


@pytest.mark.parametrize("name", WHAT_IS_NO_FIGURE)
def test_draw_refuses_what_is_no_figure(tmp_path, capsys, name):
    changes, said = WHAT_IS_NO_FIGURE[name]
    figure = one_of_each()[0]
    own = {key: getattr(figure, key) for key in ("name", "kind", "title", "caption", "alt", "settings")}
    header = {"format": "medalign-figure", "version": 1} | own | (changes or {})
    path = tmp_path / "figures" / "a b's ü.parquet"
    path.parent.mkdir()
    saved_tables.write(path, figure.table, None if changes == {} else changes if "run" in header else header)
    if changes is None:
        path.write_bytes(path.read_bytes()[:-9])
    assert COMMANDS.main(["report", "draw", str(tmp_path), "--json"], standalone_mode=False) == 3
    printed = capsys.readouterr()
    assert json.loads(printed.out)["exit_code"] == 3
    assert said in printed.err
    assert path.name in printed.err
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]


def test_a_copied_figure_has_pictures_of_its_own(tmp_path):
    """The user's copy of a figure's data does not replace the pictures of the original."""
    write_figures(tmp_path, one_of_each()[:1])
    (tmp_path / "curve.parquet").rename(tmp_path / "my copy.parquet")
    before = (tmp_path / "curve.png").read_bytes()
    (tmp_path / "curve.png").write_bytes(b"mine")
    COMMANDS.main(["report", "draw", str(tmp_path)], standalone_mode=False)
    assert (tmp_path / "curve.png").read_bytes() == b"mine"
    assert (tmp_path / "my copy.png").read_bytes() == before

"""Render tables as Markdown, as LaTeX and on the terminal."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ....plain_text import shown, visible
from ...runs.stop_reasons import as_warnings
from ...terminal import print_json, print_line, print_table, show_page
from .table_entries import DAGGER, DOUBLE_DAGGER, Entry, Grid

LATEX_DAGGER = r"\textdagger{}"
_LATEX = {
    DAGGER: LATEX_DAGGER,
    DOUBLE_DAGGER: r"\textdaggerdbl{}",
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "*": r"$^{*}$",
}


def show_comparison(summary: Mapping[str, Any], grids: Sequence[Grid], *, as_json: bool) -> None:
    """Print the summary as one JSON object, or the tables with the paths of all files."""
    if as_json:
        print_json(summary)
        return
    for grid in grids:
        print_table(_rich_grid(grid))
        for note in grid.notes:
            print_line(note)
        print_line("")
    for line in as_warnings(summary["warnings"]):
        print_line(line)
    print_line(f"All tables: {', '.join(summary['tables'])}")
    show_page(summary)


def as_markdown(title: str, preamble: Sequence[str], grids: Sequence[Grid]) -> str:
    """A Markdown page of tables."""
    parts = [f"# {_markdown_text(title)}", *map(_markdown_text, preamble), *(_markdown_grid(grid) for grid in grids)]
    return "\n\n".join(parts) + "\n"


def as_latex(grids: Sequence[Grid]) -> str:
    r"""LaTeX floats; they need `\usepackage{booktabs}`."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(map(_latex_grid, grids))


def _rich_grid(grid: Grid) -> Table:
    table = Table(title=shown(grid.title), title_justify="left")
    for place, name in enumerate(_joined_header(grid)):
        table.add_column(shown(name), justify="left" if _is_text(grid, place) else "right")
    for row in grid.rows:
        table.add_row(*map(_rich_entry, row))
    return table


def _markdown_grid(grid: Grid) -> str:
    header = [_markdown_text(name) for name in _joined_header(grid)]
    rules = ["---" if _is_text(grid, place) else "---:" for place in range(len(header))]
    lines = [header, rules, *([_markdown_entry(entry) for entry in row] for row in grid.rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "\n".join(f"- {_markdown_text(note)}" for note in grid.notes)
    return "\n\n".join(part for part in (f"## {_markdown_text(grid.title)}", table, notes) if part)


def _markdown_entry(entry: Entry) -> str:
    text = _markdown_text(entry.text)
    return _with_rest(entry, f"**{text}**" if entry.best else text, "\\*")


def _markdown_text(text: str) -> str:
    flat = visible(" ".join(text.split()))
    return re.sub(r"([\\|*<>`\[\]]|&(?=[#\w]))", r"\\\1", flat)


def _rich_entry(entry: Entry) -> Text:
    value = shown(entry.text)
    text = Text(_with_rest(entry, value, "*"))
    if entry.best:
        text.stylize("bold", 0, len(value))
    return text


def _with_rest(entry: Entry, text: str, star: str) -> str:
    """A value followed by its star, its interval and the paper's number."""
    parts = [text + (star if entry.starred else ""), entry.interval, _paper_figure(entry, DAGGER)]
    return " ".join(part for part in parts if part)


def _paper_figure(entry: Entry, mark: str) -> str:
    return f"({entry.paper}{mark if entry.other_settings else ''})" if entry.paper else ""


def _latex_grid(grid: Grid) -> str:
    columns = "".join("l" if _is_text(grid, place) else "r" for place in range(len(grid.header)))
    lines = [r"\begin{table*}", r"\centering", r"\small", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    if grid.groups:
        spans = [rf"\multicolumn{{{width}}}{{c}}{{{_latex_text(name)}}}" for name, width in grid.groups]
        lines.append(" & ".join(spans) + r" \\")
    lines += [" & ".join(map(_latex_text, grid.header)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_latex_entry, row)) + r" \\" for row in grid.rows]
    caption = _latex_text(" ".join([f"{grid.title}.", *grid.notes]))
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table*}", ""]
    return "\n".join(lines)


def _latex_entry(entry: Entry) -> str:
    text = _latex_text(entry.text)
    parts = [
        (rf"\textbf{{{text}}}" if entry.best else text) + ("$^{*}$" if entry.starred else ""),
        rf"{{\tiny {_latex_text(entry.interval)}}}" if entry.interval else "",
        _paper_figure(entry, LATEX_DAGGER),
    ]
    return " ".join(part for part in parts if part)


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in visible(" ".join(text.split())))


def _joined_header(grid: Grid) -> list[str]:
    """Group and column on one line, for tables without spans."""
    groups = [name for name, width in grid.groups for _ in range(width)] or [""] * len(grid.header)
    return [f"{group}: {name}" if group else name for group, name in zip(groups, grid.header, strict=True)]


def _is_text(grid: Grid, place: int) -> bool:
    """Whether a column has names rather than numbers."""
    return not any(re.fullmatch(r"[+-]?\d[\d.]*(e[+-]\d+)?", row[place].text) for row in grid.rows)

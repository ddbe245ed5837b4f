"""CSV files that spreadsheets and people write: what is wrong is named with its line, and reading them is linear."""

import base64

import pytest
import release_trees as trees
from medalign.errors import InputError
from medalign.pipeline.data.importers import ImportOptions, import_table
from medalign.pipeline.data.importers.tables import table
from medalign.progress import Silent

HEADER = "question,answer,image\n"


@pytest.fixture
def folder(tmp_path):
    trees.draw(tmp_path / "0.png", 0)
    return tmp_path


def read(folder, content, name="lab.csv"):
    (folder / name).write_bytes(content.encode())
    rows = import_table(folder / name, ImportOptions(), Silent()).frame.iter_rows(named=True)
    return [(row["question"], row["answer"], row["image"]) for row in rows]


SEP = "its first line, sep={}, is an instruction to Excel: delete this line"
TITLE = "its first line, {}, is not the header: delete the lines above the header"
LONG = "line {} has 4 fields, but the header has 3"
QUOTE = "line {} has a quotation mark inside a field, or an unclosed one ({})"
REFUSED = {
    "sep": (f"sep=;\n{HEADER.replace(',', ';')}q;a;0.png\n", SEP.format(";")),
    "quoted sep": (f'"sep=,"\n{HEADER}q,a,0.png\n', SEP.format(",")),
    "comment": (f"# my table\n{HEADER}q,a,0.png\n", TITLE.format("# my table")),
    "title": (f"My table\n\n{HEADER}q,a,0.png\n", TITLE.format("My table")),
    "comma": (f"{HEADER}p,a,0.png\nq, which,a,0.png\n", LONG.format(3)),
    "comma below a break": (f'{HEADER}"p\np",a,0.png\nq, which,a,0.png\n', LONG.format(4)),
    "comma below inches": (f'{HEADER}p,5" and 6",0.png\nq, which,a,0.png\n', LONG.format(3)),
    "inch": (f'{HEADER}q,5" tube,0.png\n', QUOTE.format(2, 'q,5" tube,0.png')),
    "quoted word": (f'{HEADER}p,a,0.png\n"yes" or no?,a,0.png\n', QUOTE.format(3, '"yes" or no?,a,0.png')),
    "open": (f'{HEADER}"p\n, ""p""",a,0.png\nq,"open,0.png\n', QUOTE.format(4, 'q,"open,0.png')),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_csv_that_cannot_be_read_says_why(folder, fault):
    content, said = REFUSED[fault]
    with pytest.raises(InputError) as caught:
        read(folder, content)
    assert "lab.csv cannot be read as CSV: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("inner", ["\n", "\r\n", "\r"])
def test_carriage_returns_end_lines_beside_breaks_in_quotes(folder, inner):
    found = read(folder, f'question,answer,image\rp?,x,0.png\rq?,"yes,{inner}it is",0.png\r')
    assert [(question, answer.split(), image) for question, answer, image in found] == [
        ("p?", ["x"], "0.png"),
        ("q?", ["yes,", "it", "is"], "0.png"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_other_ends_of_lines_are_what_they_were(folder, end):
    assert read(folder, end.join(["question,answer,image", 'p?,"a\rb",0.png', ""]))[0][1].split() == ["a", "b"]


def test_blank_lines_are_left_out_in_one_pass(folder, monkeypatch):
    class Row(dict):
        compared = 0

        def __eq__(self, other):
            Row.compared += 1
            return super().__eq__(other)

        __hash__ = None

    looked_at = []

    def read_text(value):
        looked_at.append(value)
        return value

    monkeypatch.setattr(table, "text", read_text)
    for size in (20, 40):
        rows = [Row(question=f"q{number}", answer="a") for number in range(size)] + [
            Row(question=None, answer=None) for _ in range(size)
        ]
        monkeypatch.setattr(table, "read_table", lambda *_, rows=rows, **__: rows)
        (folder / "lab.csv").write_text("question,answer\n")
        looked_at.clear()
        assert len(table._read_separated(folder / "lab.csv", Silent())) == size
        assert len(looked_at) == 3 * size  # one cell of a full row, two of a blank one
    assert Row.compared == 0


@pytest.mark.parametrize("start", ["", "data:image/png;base64,", "/9j/"])
def test_a_picture_in_a_cell_is_not_printed(folder, start):
    picture = start + base64.b64encode(bytes(range(256)) * 40).decode()
    with pytest.raises(InputError) as caught:
        read(folder, f"index\timage\tquestion\tanswer\n0\t{picture}\tq\tA\n", "lab.tsv")
    message = str(caught.value)
    assert "1 of 1 image files are missing" in message
    assert (
        "names are longer than any file name can be; "
        "if they are base64 images, write them to files and use the file names" in message
    )
    assert len(message) < 600

"""A lab's own table: columns by usual names or as stated, every notation of a spreadsheet, errors that list columns."""

import hashlib
import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import release_trees as trees
from medalign.cli import app
from medalign.errors import InputError, SettingsError
from medalign.pipeline.data.importers import ImportOptions, import_table
from medalign.pipeline.data.importers.records import text
from medalign.pipeline.data.importers.tables.answer_options import Options, read_options
from medalign.pipeline.data.importers.tables.columns import parse_columns
from medalign.pipeline.data.importers.tables.notations import UnclearValue
from medalign.progress import Silent
from typer.testing import CliRunner


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    def __str__(self):
        return "\n".join(self.lines)


def imported(path, *columns, **options):
    notes = Notes()
    manifest = import_table(path, ImportOptions(columns=parse_columns(columns), **options), notes)
    return manifest, list(manifest.frame.iter_rows(named=True)), str(notes)


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("a.png", "b.png", "c, d.png")):
        trees.draw(tmp_path / name, seed)
    return tmp_path


def write(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def test_usual_names_need_no_options(folder):
    table = write(
        folder / "lab.csv",
        "\ufeffQuestion,ANSWER,Image Path,Split,Answer-Type,qid,note\r\n"
        'Is it?,yes,a.png,Train,CLOSED,7,x\r\n"What, then?\nSay.",,"c, d.png",val,,8,\r\n',
    )
    manifest, rows, notes = imported(table)
    assert [(row["question_id"], row["question"], row["answer"]) for row in rows] == [
        ("7", "Is it?", "yes"),
        ("8", "What, then?\nSay.", None),
    ]
    assert [(row["image"], row["split"], row["answer_type"]) for row in rows] == [
        ("a.png", "train", "closed"),
        ("c, d.png", "validation", None),
    ]
    assert set(manifest.frame["data_use"]) == {"private"}
    assert "not used: note" in notes
    assert "1 of 2 questions have no reference answer" in notes


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(folder, suffix):
    rows = [{"Q": "one?", "A": "nan", "File": "a.png"}, {"Q": "two?", "A": "4", "File": "b.png"}]
    path = folder / f"lab.{suffix}"
    frame = pl.DataFrame(rows)
    if suffix in ("csv", "tsv"):
        frame.write_csv(path, separator="," if suffix == "csv" else "\t")
    elif suffix == "parquet":
        frame.write_parquet(path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)) if suffix == "jsonl" else json.dumps(rows))
    found = imported(path, "question=Q", "answer=A", "image=File")[1]
    assert [(row["question"], row["answer"], row["image"]) for row in found] == [
        ("one?", "nan", "a.png"),  # the word is an answer
        ("two?", "4", "b.png"),
    ]
    assert {row["split"] for row in found} == {"train"}


@pytest.mark.parametrize(("mark", "named"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_separators_other_than_commas(folder, mark, named):
    lines = [mark.join(fields) for fields in (("question", "answer", "image"), ("Is it 1,5 cm?", "yes, 1,5", "a.png"))]
    _, rows, notes = imported(write(folder / "lab.csv", "\n".join(lines)))
    assert rows[0]["answer"] == "yes, 1,5"
    assert f"lab.csv is separated by {named}" in notes


def test_blank_lines_are_counted(folder):
    table = write(folder / "lab.csv", "question,answer,image\n\nq?,a,a.png\n,,\n")
    _, rows, notes = imported(table)
    assert len(rows) == 1
    assert "2 blank lines of lab.csv are skipped" in notes


def test_missing_columns_are_named_beside_those_there(folder):
    table = write(folder / "lab.csv", "Frage,Antwort,Bild\nq?,a,a.png\n")
    with pytest.raises(InputError) as caught:
        imported(table)
    message = str(caught.value)
    assert "has no column for question, answer, image; its columns: Frage, Antwort, Bild" in message
    assert "image: image, images, image_path" in message
    assert message.endswith("Specify them with --column question=NAME --column answer=NAME --column image=NAME")
    with pytest.raises(InputError, match=r"Specify it with --column image=NAME$"):
        imported(table, "question=Frage", "answer=Antwort")
    with pytest.raises(InputError, match="has no column for answer=A; its columns: Frage, Antwort, Bild"):
        imported(table, "question=Frage", "answer=A", "image=Bild")
    assert imported(table, "question=Frage", "answer=Antwort", "image=Bild")[1][0]["answer"] == "a"


def test_columns_that_may_be_either_are_a_question(folder):
    table = write(folder / "lab.csv", "Question,question ,answer,image\np?,q?,a,a.png\n")
    with pytest.raises(
        InputError, match="the columns Question, question could all be the question; pick one with --column question="
    ):
        imported(table)
    assert imported(table, "question=question")[1][0]["question"] == "q?"
    table = write(folder / "lab.csv", "question,answer,image,image\np?,a,a.png,b.png\n")
    with pytest.raises(InputError, match="columns with the same name: image; rename them"):
        imported(table)


def test_stated_columns_are_checked():
    with pytest.raises(SettingsError, match=r"--column Q: expected ROLE=NAME, with ROLE one of question, answer"):
        parse_columns(["Q"])
    with pytest.raises(SettingsError, match="--column title=T: expected"):
        parse_columns(["title=T"])
    with pytest.raises(SettingsError, match=r"--column answer=\.\.\. is given twice"):
        parse_columns(["answer=a", "answer=b"])
    assert parse_columns(["image=a", "image=b=c"]) == (("image", "a"), ("image", "b=c"))


def test_every_malformed_row_is_listed(folder):
    rows = [
        {"question": "q?", "answer": "a", "image": "a.png", "options": None},
        {"question": " ", "answer": "a", "image": "a.png"},
        {"question": "q?", "answer": ["a", "b"], "image": "a.png"},
        {"question": "q?", "answer": "a", "image": "a.png", "answer_type": "essay"},
        {"question": "q?", "answer": "a", "image": "a.png", "options": "only"},
        {"question": "q?", "answer": "a", "image": "a.png", "answer_type": "choice"},
        7,
    ]
    path = folder / "lab.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError) as caught:
        imported(path)
    message = str(caught.value)
    assert "6 of 7 rows are malformed" in message
    for number, said in enumerate(
        (
            "no question in question",
            "answer is a list, not text",
            "answer_type 'essay' is not one of",
            "one option, 'only'",
            "answer_type choice without options",
            "a number, not an object",
        ),
        start=1,
    ):
        assert f"record {number}: {said}" in message


def test_options_in_columns_cells_and_lists(folder):
    table = write(
        folder / "lab.csv", "question,answer,image,Option A,Option B\nq?,B,a.png,left,right\nr?,left,b.png,left,\n"
    )
    with pytest.raises(InputError, match="row 2: one option, 'left'"):
        imported(table)
    table = write(folder / "lab.csv", "question,answer,image,Option A,Option B\nq?,B,a.png,left,right\n")
    row = imported(table)[1][0]
    assert (row["answer"], row["answer_type"], row["options"]) == ("right", "choice", ["left", "right"])
    table = write(folder / "lab.csv", 'question,answer,image,choices\nq?,right,a.png,"[""left"", ""right""]"\n')
    assert imported(table)[1][0]["options"] == ["left", "right"]
    pl.DataFrame({"question": ["q?"], "answer": ["x"], "image": ["a.png"], "options": [["x", "y"]]}).write_parquet(
        folder / "lab.parquet"
    )
    assert imported(folder / "lab.parquet")[1][0]["options"] == ["x", "y"]


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ('["a", 2]', ("a", "2")),
        ("A. left, B. right, or C", ("left", "right, or C")),
        ("A) one B) two C) three", ("one", "two", "three")),
        ("(A) Vitamin A. (B) none", ("Vitamin A.", "none")),
        ("left | right", ("left", "right")),
        ("left; right", ("left", "right")),
        ("A, B, C", ("A", "B", "C")),
        ("left, right", ("left, right",)),
    ],
)
def test_notations_of_options(written, options):
    assert read_options(written, "options").texts == options


@pytest.mark.parametrize("written", ["[" * 100_000, "[" + "1" * 5000 + "]", "[broken"], ids=["deep", "long", "broken"])
def test_lists_that_python_cannot_hold_are_refused(written):
    with pytest.raises(UnclearValue, match="begins like a list but is not one"):
        read_options(written, "options")


def test_letters_stand_for_options():
    options = Options.listed(("Edema", "No effusion.", "Mass"))
    assert [options.chosen(answer) for answer in ("B", "(c)", "A. edema", "b) no effusion", "D", "A mass")] == [
        "No effusion.", "(c)", "Edema", "b) no effusion", "D", "A mass"
    ]  # fmt: skip


def test_answers_that_are_not_there(folder):
    assert [text(value) for value in (None, float("nan"), float("inf"), "", "  ")] == [None] * 5
    assert [text(value) for value in ("nan", "None", 0, 3.5, False)] == ["nan", "None", "0", "3.5", "False"]
    frame = pl.DataFrame({"question": ["a?", "b?", "c?"], "answer": [1.0, float("nan"), None], "image": ["a.png"] * 3})
    frame.write_parquet(folder / "lab.parquet")
    _, rows, notes = imported(folder / "lab.parquet")
    assert [row["answer"] for row in rows] == ["1.0", None, None]
    assert "2 of 3 questions have no reference answer (empty, null or NaN)" in notes
    (folder / "lab.json").write_text('[{"question": "q?", "answer": NaN, "image": "a.png"}]')
    assert imported(folder / "lab.json")[1][0]["answer"] is None


def test_lines_that_end_in_carriage_returns(folder):
    _, rows, _ = imported(write(folder / "lab.csv", 'question,answer,image\rIs it?,"yes, it is",a.png\rOr?,no,b.png\r'))
    assert [row["answer"] for row in rows] == ["yes, it is", "no"]


def test_parquet_with_images_of_any_kind(folder):
    data = trees.encoded(5)
    kinds = {
        "bytes": pa.array([data, data]),
        "views": pa.array([data, data], pa.binary_view()),
        "dictionary": pa.array([data, data], pa.binary()).dictionary_encode(),
        "structs": pa.array([{"bytes": data, "path": "x.png"}] * 2, trees.HUB_IMAGE),
        "lists": pa.array([[{"bytes": data, "path": None}]] * 2, pa.list_(trees.HUB_IMAGE)),
    }
    for kind, images in kinds.items():
        pq.write_table(
            pa.table({"image": images, "question": ["a?", "b?"], "answer": ["x", "y"]}), folder / "lab.parquet"
        )
        manifest, rows, _ = imported(folder / "lab.parquet", unpacked=folder / kind)
        assert manifest.root == folder / kind
        assert {manifest.path_of(row["image"]).read_bytes() for row in rows} == {data}
        assert manifest.images().height == 1
    paths = pa.array([{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "b.png"}], trees.HUB_IMAGE)
    pq.write_table(pa.table({"image": paths, "question": ["a?", "b?"], "answer": ["x", "y"]}), folder / "lab.parquet")
    manifest, rows, _ = imported(folder / "lab.parquet", unpacked=folder / "none")
    assert (manifest.root, [row["image"] for row in rows]) == (folder, ["a.png", "b.png"])
    assert not (folder / "none").exists()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_without_a_split_column_are_noted_with_the_option_that_helps(folder, suffix):
    rows = {"question": ["a?", "b?", "c?"], "answer": ["x"] * 3, "image": ["a.png", "b.png", "a.png"]}

    def written(name, **more):
        path = folder / f"{name}.{suffix}"
        frame = pl.DataFrame(rows | more)
        {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[suffix](path)
        return path

    everything = (
        f"lab.{suffix} has no split column (split, partition, subset), so all of its rows are in the split train"
    )
    plain = written("lab", site=["valid", "north", None])
    assert f"{everything}; for others, pass --split train=0.8,test=0.2" in imported(plain)[2]
    assert "no split column" not in imported(plain, split="test")[2]
    fold = {"The Fold": ["TRAIN", "Dev", None]}
    assert f"{everything}; for others, pass --column 'split=The Fold'" in imported(written("lab", **fold))[2]
    unread = f"the column The Fold of {{}}.{suffix} looks like a split and is not used, because "
    for options in ({"split": "test"}, {"drawn_split": "train=0.8,test=0.2"}):
        given = f"--split {next(iter(options.values()))}"
        stated = f"{unread.format('lab')}of {given}: omit it and pass --column 'split=The Fold'"
        assert stated in imported(written("lab", **fold), **options)[2]
    assert f"{unread.format('test')}the path says test: to use it, pass" in imported(written("test", **fold))[2]
    assert "path says" not in imported(written("test"))[2]
    read = imported(written("lab", Split=["train", "test", "test"], **fold))[2]
    assert "no split column" not in read
    assert "looks like" not in read


def names_of_images(row):
    return [row["image"], *(image["image"] for image in row["more_images"])]


def test_questions_about_several_images(folder):
    (folder / "lab.json").write_text(
        json.dumps([{"id": 3, "question": "q?", "answer": "a", "image": ["a.png", "b.png"]}])
    )
    (row,) = imported(folder / "lab.json")[1]
    assert names_of_images(row) == ["a.png", "b.png"]
    assert row["more_images"][0]["image_hash"] == hashlib.sha256((folder / "b.png").read_bytes()).hexdigest()
    table = write(folder / "lab.csv", "question,answer,one,two\nq?,a,a.png,b.png\n")
    assert names_of_images(imported(table, "image=one", "image=two")[1][0]) == ["a.png", "b.png"]
    assert imported(table, "image=two")[1][0]["image"] == "b.png"
    table = write(folder / "lab.csv", 'question,answer,image\nq?,a,"[""a.png"", ""b.png""]"\n')
    assert names_of_images(imported(table)[1][0]) == ["a.png", "b.png"]


def test_questions_without_an_image_are_counted(folder):
    _, rows, notes = imported(write(folder / "lab.csv", "question,answer,image\nq?,a,\nr?,b,a.png\n"))
    assert [row["image"] for row in rows] == [None, "a.png"]
    assert "1 of 2 questions of lab.csv have no image and are text-only" in notes


def test_images_of_a_table_lie_beside_it_or_where_stated(folder):
    table = write(folder / "lab.csv", "question,answer,image\nq?,a,x.png\n")
    with pytest.raises(InputError, match=r"1 of 1 image files are missing:\n  - .*/x\.png"):
        imported(table)
    trees.draw(folder / "images" / "x.png", 1)
    assert imported(table)[0].root == folder / "images"
    trees.draw(folder / "far" / "x.png", 1)
    assert imported(table, images=folder / "far")[0].root == folder / "far"


def test_a_missing_image_is_named_with_its_rows(folder):
    table = write(folder / "lab.csv", "question,answer,image\nq?,a,a.png\nr?,b,x.png\ns?,b,y.png\nt?,b,x.png\n")
    with pytest.raises(InputError) as caught:
        imported(table)
    assert str(caught.value).splitlines()[:3] == [
        "2 of 3 image files are missing:",
        f"  - {folder / 'x.png'} (row 2 of lab.csv and 1 more)",
        f"  - {folder / 'y.png'} (row 3 of lab.csv)",
    ]


def test_times_in_nanoseconds_are_no_obstacle(folder):
    """As pandas writes them; the columns are not used."""
    moment = 1_600_000_000_123_456_789
    table = pa.table(
        {
            "question": ["q?"],
            "answer": ["a"],
            "image": ["a.png"],
            "at": pa.array([moment], pa.timestamp("ns")),
            "there": pa.array([moment], pa.timestamp("ns", "UTC")),
            "took": pa.array([moment], pa.duration("ns")),
            "clock": pa.array([123_456_789], pa.time64("ns")),
            "all": pa.array([[moment]], pa.list_(pa.timestamp("ns"))),
            "part": pa.array([{"t": moment}], pa.struct([("t", pa.timestamp("ns"))])),
        }
    )
    pq.write_table(table, folder / "lab.parquet")
    assert imported(folder / "lab.parquet")[1][0]["answer"] == "a"


def test_dates_that_python_does_not_have_are_told(folder):
    columns = {"question": ["q?"], "answer": ["a"], "image": ["a.png"]}
    pq.write_table(pa.table(columns | {"at": pa.array([2**60], pa.timestamp("ms"))}), folder / "lab.parquet")
    with pytest.raises(InputError, match=r"lab\.parquet cannot be read as Parquet: "):
        imported(folder / "lab.parquet")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("lab.json", b"[" * 100_000, r"cannot be read as JSON: lists and objects are nested too deeply"),
        ("lab.jsonl", b'{"a": ' * 100_000, r"line 1: not JSON \(lists and objects are nested too deeply"),
        ("lab.json", b"[" + b"1" * 5000 + b"]", r"cannot be read as JSON: an integer has too many digits"),
        ("lab.jsonl", b'{"a": ' + b"1" * 5000 + b"}", r"line 1: not JSON \(an integer has too many digits"),
        ("lab.csv", b"question,answer,image\nq?,\xe9,a.png\n", r"is not UTF-8 text .*; save it as UTF-8"),
        ("lab.csv", "question,answer,image\n".encode("utf-16"), r"is not UTF-8 text .*; save it as UTF-8"),
        (
            "lab.csv",
            b"question,answer,image\nq?,a,a.png,more\n",
            r"cannot be read as CSV: line 2 has 4 fields, but the header has 3",
        ),
        ("lab.csv", b"", r"cannot be read as CSV: empty CSV"),
        ("lab.csv", b"question,answer,image\n", r"has no rows"),
        ("lab.parquet", b"PAR1", r"cannot be read as Parquet: "),
        ("lab.jsonl", b'{"question"', r"row(s)? are malformed(.|\n)*line 1: not JSON"),
        (
            "lab.xlsx",
            b"PK",
            r"is not a table: expected \.csv, .*; save a spreadsheet as CSV UTF-8",
        ),
    ],
)
def test_files_that_are_no_tables_say_why(folder, name, content, said):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        imported(folder / name)


def test_the_command_takes_columns(folder):
    table = write(folder / "test.csv", "Q,Answer,File\nq?,yes,a.png\n")
    out = folder / "m.parquet"
    command = [
        "data",
        "import",
        "table",
        str(table),
        "--out",
        str(out),
        "--column",
        "question=Q",
        "--column",
        "image=File",
    ]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["questions"], report["splits"], report["answer_types"]) == (1, {"test": 1}, {"closed": 1})
    done = CliRunner().invoke(
        app, ["data", "import", "slake", str(folder), "--out", str(out), "--column", "question=Q"]
    )
    assert done.exit_code == 2
    assert "--column question=Q: not used for slake" in done.output

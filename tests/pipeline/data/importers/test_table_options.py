"""Options of a table: an answer's letter means the option that carries it, whatever is empty or out of order."""

import csv
import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import release_trees as trees
from medalign.errors import InputError
from medalign.pipeline.data.importers import (
    ImportOptions,
    import_llava_json,
    import_medheval,
    import_omnimedvqa,
    import_table,
)
from medalign.progress import Silent


@pytest.fixture
def folder(tmp_path):
    for seed in range(2):
        trees.draw(tmp_path / f"{seed}.png", seed)
    return tmp_path


def from_csv(folder, header, *rows):
    path = folder / "lab.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("question", "image", *header), *(("Which?", "0.png", *row) for row in rows)])
    return read(path)


def from_json(folder, answer, options, **others):
    path = folder / "lab.jsonl"
    path.write_text(json.dumps({"question": "Which?", "image": "0.png", "answer": answer, "options": options} | others))
    return read(path)


def read(path):
    rows = import_table(path, ImportOptions(unpacked=path.parent / "un"), Silent()).frame.iter_rows(named=True)
    return [(row["answer"], row["options"]) for row in rows]


@pytest.mark.parametrize("header", ["ABCD", ["option_A", "option_B", "option_C", "option_D"], ["D", "A", "C", "B"]])
def test_a_letter_names_its_column_where_options_are_empty(folder, header):
    by_letter = {"A": "heart", "B": "", "C": "liver", "D": "lung"}
    cells = [by_letter[name[-1]] for name in header]
    found = from_csv(folder, ["answer", *header], ["C", *cells], ["D. lung", *cells], ["heart", *cells])
    assert found == [(answer, ["heart", "liver", "lung"]) for answer in ("liver", "lung", "heart")]


def test_a_letter_names_its_column_where_there_is_no_column_before_it(folder):
    assert from_csv(folder, ["answer", "A", "C", "D"], ["D", "heart", "liver", "lung"])[0][0] == "lung"


def test_a_letter_counts_positions_of_a_list_with_empty_entries(folder):
    assert from_json(folder, "C", ["no", None, "yes", "maybe"]) == [("yes", ["no", "yes", "maybe"])]
    assert from_json(folder, "(D)", ["", "no", " ", "yes"]) == [("yes", ["no", "yes"])]
    assert from_json(folder, "C", '["no", null, "yes", "maybe"]')[0][0] == "yes"
    assert from_json(folder, "C", "no | | yes | maybe")[0][0] == "yes"
    assert from_json(folder, "C", {"A": "no", "B": None, "C": "yes", "D": "maybe"})[0][0] == "yes"


def test_an_answer_that_names_an_empty_option_is_malformed(folder):
    with pytest.raises(InputError, match=r"row 1: the answer 'B' refers to an empty option"):
        from_csv(folder, ["answer", "A", "B", "C"], ["B", "heart", "", "lung"])
    with pytest.raises(InputError, match=r"line 1: the answer 'B' refers to an empty option"):
        from_json(folder, "B", ["no", None, "yes"])


def test_letters_within_options_are_the_ones_that_count(folder):
    assert from_json(folder, "A", ["B. no", "A. yes"])[0][0].endswith("yes")
    assert from_json(folder, "B", ["C) c", "(A) a", "B: b"])[0][0].endswith("b")
    assert from_json(folder, "C", ["A. a", "C. c", "D. d"])[0][0].endswith("c")
    assert from_json(folder, "B", ["A. no", "B. yes"])[0][0].endswith("yes")
    (answer, options) = from_json(folder, "A. yes", ["B. no", "A. yes"])[0]
    assert options.index(answer) == 0  # where options are counted, the letter and the place agree


@pytest.mark.parametrize("options", [["A. no", "yes"], ["B. no", "B. yes"], ["Staphylococcus", "E. coli"]])
def test_letters_of_a_part_of_the_options_are_refused(folder, options):
    with pytest.raises(InputError, match=r"line 1: the answer 'B' is a letter, but (only some|two) of the options"):
        from_json(folder, "B", options)
    assert from_json(folder, options[1], options) == [(options[1], options)]


def test_letters_that_contradict_their_columns_are_refused(folder):
    with pytest.raises(InputError, match=r"row 1: .*option A begins with B"):
        from_csv(folder, ["answer", "option_A", "option_B"], ["A", "B. no", "A. yes"])
    assert from_csv(folder, ["answer", "option_A", "option_B"], ["B", "A. no", "B. yes"])[0][0].endswith("yes")


@pytest.mark.parametrize("options", [{"A": "no; none", "B": "yes"}, {"b": "yes", "a": "no; none"}])
def test_objects_are_options_by_letter(folder, options):
    assert from_json(folder, "B", options) == [("yes", ["no; none", "yes"])]
    assert from_json(folder, "B", json.dumps(options)) == [("yes", ["no; none", "yes"])]
    assert from_json(folder, "A", str(options)) == [("no; none", ["no; none", "yes"])]  # as pandas writes it


@pytest.mark.parametrize("kind", ["struct", "map", "list"])
def test_parquet_structs_and_maps_are_options(folder, kind):
    options = {
        "struct": pa.array([{"A": "q; r", "B": "z", "C": None}]),
        "map": pa.array([[("B", "z"), ("A", "q; r")]], pa.map_(pa.string(), pa.string())),
        "list": pa.array([["q; r", "z"]], pa.list_(pa.string(), 2)),
    }[kind]
    table = pa.table({"question": ["Which?"], "answer": ["A"], "image": ["0.png"], "options": options})
    pq.write_table(table, folder / "lab.parquet")
    assert read(folder / "lab.parquet") == [("q; r", ["q; r", "z"])]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"A": "x", "first": "y"}, "options has the key 'first'"),
        ({"A": "x", "a": "y"}, "options has two entries for A"),
        ({"text": ["x"], "label": ["A"]}, "options has the key 'text'"),
        ({"A": "x", "B": ["y"]}, "options has a list"),
        (["x", {"y": "z"}], "options has an object"),
        ('{"A": "x", "A": "y"}', "options cannot be parsed: the key A appears twice with different values"),
        ('["x", "\\ud83d"]', "options cannot be parsed: [1] has \\ud83d, half of a surrogate pair"),
        ("['x', '\\ud83d']", "options cannot be parsed: [1] has \\ud83d, half of a surrogate pair"),
        ("['x', 'y'", "options begins like a list but is not one"),
        ("{'A': x}", "options begins like an object but is not one"),
        ("['x' 'y; z']", "options begins like a list but is not one"),  # as NumPy writes an array: no commas
        ("{'x', 'y'}", "options begins like an object but is not one"),
        ("[" * 9000, "options begins like a list but is not one"),
        ("[__import__('os').getpid(), 'x']", "options begins like a list but is not one"),
    ],
)
def test_options_that_are_no_list_are_refused(folder, options, said):
    with pytest.raises(InputError) as caught:
        from_json(folder, "x", options)
    assert f"line 1: {said}" in str(caught.value)
    assert "1 of 1 rows are malformed" in str(caught.value)


def test_python_lists_are_lists(folder):
    assert from_json(folder, "B", "['no; none', \"it's\"]") == [("it's", ["no; none", "it's"])]
    assert from_json(folder, "C", "['no', None, 'yes', nan]") == [("yes", ["no", "yes"])]
    path = folder / "lab.csv"
    for cell in ("['0.png', '1.png']", '[ "0.png", "1.png"]', "('0.png', '1.png')"):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("question", "answer", "image"), ("q?", "a", cell)])
        (row,) = import_table(path, ImportOptions(), Silent()).frame.iter_rows(named=True)
        assert [row["image"], *(image["image"] for image in row["more_images"])] == ["0.png", "1.png"]


def test_a_file_name_may_begin_like_a_list(folder):
    trees.draw(folder / "[1] chest.png", 5)
    (row,) = from_json_image(folder, "[1] chest.png")
    assert row["image"] == "[1] chest.png"
    with pytest.raises(InputError, match=r"line 1: image begins like a list but is not one"):
        from_json_image(folder, "['0.png', '1.png'")
    with pytest.raises(InputError, match=r"line 1: image has an object"):
        from_json_image(folder, [{"name": "0.png"}])


def from_json_image(folder, image):
    path = folder / "lab.jsonl"
    path.write_text(json.dumps({"question": "Which?", "image": image, "answer": "x"}))
    return import_table(path, ImportOptions(), Silent()).frame.iter_rows(named=True)


def test_empty_options_move_no_letter_of_a_conversation(folder):
    record = {
        "id": "1",
        "image": "0.png",
        "conversations": [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "C"}],
        "option_A": "heart",
        "option_B": "",
        "option_C": "liver",
        "option_D": "lung",
    }
    path = folder / "talk.json"
    path.write_text(json.dumps([record]))
    (row,) = import_llava_json(path, ImportOptions(), Silent()).frame.iter_rows(named=True)
    assert (row["answer"], row["options"]) == ("liver", ["heart", "liver", "lung"])
    record["conversations"][1]["value"] = "B"
    path.write_text(json.dumps([record]))
    with pytest.raises(InputError, match="record 0: the answer 'B' refers to an empty option"):
        import_llava_json(path, ImportOptions(), Silent())


@pytest.mark.parametrize("choices", [["no; none", "yes"], {"A": "no; none", "B": "yes"}, "['no; none', 'yes']"])
def test_medheval_takes_lists_and_objects(folder, choices):
    path = folder / "m.json"
    path.write_text(json.dumps([{"qid": 1, "img_name": "0.png", "question": "q?", "answer": "B", "choices": choices}]))
    (row,) = import_medheval(path, ImportOptions(), Silent()).frame.iter_rows(named=True)
    assert (row["answer"], row["options"]) == ("yes", ["no; none", "yes"])


def test_empty_options_move_no_letter_of_omnimedvqa(tmp_path):
    trees.omnimedvqa(tmp_path)
    path = next(path for path in sorted(tmp_path.rglob("*.json")) if "Open-access" in path.parts)
    records = json.loads(path.read_text())
    records[0] |= {"option_A": "heart", "option_B": None, "option_C": "liver", "option_D": "lung", "gt_answer": "C"}
    path.write_text(json.dumps(records))
    rows = import_omnimedvqa(tmp_path, ImportOptions(), Silent()).frame
    row = rows.row(by_predicate=pl.col("question_id") == records[0]["question_id"], named=True)
    assert (row["answer"], row["options"]) == ("liver", ["heart", "liver", "lung"])
    records[0]["gt_answer"] = "B"
    path.write_text(json.dumps(records))
    with pytest.raises(InputError, match="record 0: the answer 'B' refers to an empty option"):
        import_omnimedvqa(tmp_path, ImportOptions(), Silent())

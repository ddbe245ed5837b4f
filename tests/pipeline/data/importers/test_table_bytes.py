"""Parquet whose texts are bytes without a mark, as Spark, Hive and Impala write them, and names that come twice."""

import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import release_trees as trees
from medalign.errors import InputError
from medalign.pipeline.data.importers import (
    ImportOptions,
    import_image_folder,
    import_iu_xray,
    import_llava_json,
    import_medheval,
    import_pathvqa,
    import_slake,
    import_table,
)
from medalign.progress import Silent

KINDS = {
    "binary": pa.binary(),
    "large": pa.large_binary(),
    "view": pa.binary_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.binary()),
}


@pytest.fixture
def folder(tmp_path):
    for seed in range(2):
        trees.draw(tmp_path / f"{seed}.png", seed)
    return tmp_path


def read(folder, **columns):
    table = {"question": ["What is it?"], "answer": ["lung"], "image": ["0.png"]} | columns
    pq.write_table(pa.table(table), folder / "lab.parquet")
    manifest = import_table(folder / "lab.parquet", ImportOptions(unpacked=folder / "un"), Silent())
    return manifest, next(manifest.frame.iter_rows(named=True))


def array(value, kind):
    if pa.types.is_dictionary(kind):
        return pa.array([value], kind.value_type).dictionary_encode()
    return pa.array([value], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_in_bytes_are_texts(folder, kind):
    values = {"question": "Où est-ce ?", "answer": "yes", "image": "0.png", "split": "test", "id": "7"}
    columns = {name: array(value.encode(), KINDS[kind]) for name, value in values.items()}
    manifest, row = read(folder, **columns)
    assert [row[name] for name in ("question", "answer", "image", "split", "question_id")] == list(values.values())
    assert row["answer_type"] == "closed"
    assert manifest.root == folder
    assert not (folder / "un").exists()


def test_texts_of_a_fixed_number_of_bytes_are_texts(folder):
    _, row = read(folder, answer=pa.array([b"yes\0\0"], pa.binary(5)), image=pa.array([b"0.png"], pa.binary(5)))
    assert (row["answer"], row["image"]) == ("yes", "0.png")


@pytest.mark.parametrize(
    "options",
    [
        pa.array([[b"no; none", b"lung"]], pa.list_(pa.binary())),
        pa.array([[b"no; none", b"lung"]], pa.large_list(pa.large_binary())),
        pa.array([{"B": b"lung", "A": b"no; none"}], pa.struct([("B", pa.binary()), ("A", pa.binary())])),
        pa.array([[(b"B", b"lung"), (b"A", b"no; none")]], pa.map_(pa.binary(), pa.binary())),
        pa.array([b"A. no; none B. lung"]),
    ],
    ids=["list", "large", "struct", "map", "text"],
)
def test_options_in_bytes_are_texts(folder, options):
    _, row = read(folder, options=options, answer=pa.array([b"B"]))
    assert (row["answer"], row["options"]) == ("lung", ["no; none", "lung"])


def test_bytes_that_are_no_text_name_their_column(folder):
    with pytest.raises(InputError, match=r"lab\.parquet: row 1: answer has bytes that are not UTF-8 text"):
        read(folder, answer=pa.array([b"H\xf6he"]))
    with pytest.raises(InputError, match=r"options has bytes that are not UTF-8 text"):
        read(folder, options=pa.array([[b"H\xf6he", b"x"]]))


def test_bytes_of_other_columns_are_not_stored(folder):
    manifest, _ = read(folder, thumbnail=pa.array([trees.encoded(5)]), mask=pa.array([b"\xff"]))
    assert manifest.root == folder
    assert not (folder / "un").exists()


def structs(data, kind):
    return pa.struct([("bytes", kind), ("path", pa.string())]), {"bytes": data, "path": "x.png"}


@pytest.mark.parametrize("kind", ["fixed", "fixed list", "fixed list of structs", "fixed in struct", "list view"])
def test_images_in_every_kind_of_bytes_are_stored(folder, kind):
    data = trees.encoded(5)
    exact = pa.binary(len(data))
    struct, value = structs(data, pa.binary())
    images = {
        "fixed": pa.array([data], exact),
        "fixed list": pa.array([[data]], pa.list_(exact, 1)),
        "fixed list of structs": pa.array([[value]], pa.list_(struct, 1)),
        "fixed in struct": pa.array([value], structs(data, exact)[0]),
        "list view": pa.array([[data]], pa.list_(pa.large_binary())),
    }[kind]
    manifest, row = read(folder, image=images)
    assert manifest.path_of(row["image"]).read_bytes() == data
    assert manifest.root == folder / "un"


def test_images_that_are_not_there_are_paths_or_refused(folder):
    struct, _ = structs(b"", pa.binary())
    assert read(folder, image=pa.array([{"bytes": b"", "path": "0.png"}], struct))[1]["image"] == "0.png"
    assert read(folder, image=pa.array([{"bytes": b"1.png", "path": None}], struct))[1]["image"] == "1.png"
    assert read(folder, image=pa.array([{"path": "0.png", "mime": "x"}]))[1]["image"] == "0.png"
    with pytest.raises(InputError, match="row 1: image has an object instead of a file name"):
        read(folder, image=pa.array([{"url": "0.png"}]))


def test_columns_of_one_name_are_refused_in_parquet_as_in_csv(folder):
    names = ["question", "question", "answer", "image"]
    pq.write_table(pa.table([["a?"], ["b?"], ["x"], ["0.png"]], names=names), folder / "lab.parquet")
    (folder / "lab.csv").write_text(",".join(names) + "\na?,b?,x,0.png\n")
    said = []
    for name in ("lab.parquet", "lab.csv"):
        with pytest.raises(InputError) as caught:
            import_table(folder / name, ImportOptions(), Silent())
        said.append(str(caught.value).removeprefix(str(folder / name)))
    assert said == [" has several columns with the same name: question; rename them"] * 2


def test_an_image_folder_with_bytes_beside_it_is_read(folder):
    table = {"file_name": [b"0.png"], "label": [b"\xff"]}
    pq.write_table(pa.table(table), folder / "metadata.parquet")
    assert import_image_folder(folder, ImportOptions(), Silent()).images().height == 2


QUESTION = '"answer": "x", "image": "0.png"'
FAULTS = {
    "repeated": ('"question": "q?", "question": "r?"', "the key question appears twice with different values"),
    "surrogate": ('"question": "bad \\ud83d emoji"', r"question has \ud83d, half of a surrogate pair"),
    "surrogate in a key": ('"question": "q?", "n\\udc00": 1', "half of a surrogate pair"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_records_with_faults_are_malformed(folder, fault, form):
    written, said = FAULTS[fault]
    good = f'{{"question": "whole \\ud83d\\ude00", {QUESTION}}}'
    records = [good, f"{{{written}, {QUESTION}}}"]
    path = folder / f"lab.{form}"
    path.write_text("\n".join(records) if form == "jsonl" else f"[{','.join(records)}]")
    with pytest.raises(InputError) as caught:
        import_table(path, ImportOptions(), Silent())
    assert "1 of 2 rows are malformed" in str(caught.value)
    assert ("record 1: " if form == "json" else "line 2: ") in str(caught.value)
    assert said in str(caught.value)
    path.write_text(good if form == "jsonl" else f"[{good}]")
    (row,) = import_table(path, ImportOptions(), Silent()).frame.iter_rows(named=True)
    assert row["question"] == "whole \U0001f600"


def test_a_key_repeated_with_the_same_value_is_no_question(folder):
    (folder / "lab.json").write_text(f'[{{"question": "q?", "question": "q?", {QUESTION}}}]')
    assert import_table(folder / "lab.json", ImportOptions(), Silent()).questions.height == 1


@pytest.mark.parametrize(
    ("name", "run", "content", "said"),
    [
        (
            "talk.json",
            import_llava_json,
            '[{"id": "1", "image": "0.png", "conversations": [{"from": "human", "value": "q \\ud83d"}]}]',
            r"record 0: conversations[0].value has \ud83d, half of a surrogate pair",
        ),
        (
            "talk.jsonl",
            import_llava_json,
            '{"id": "1", "conversations": [{"from": "human", "value": "q", "value": "r"}]}',
            "line 1: the key conversations[0].value appears twice with different values",
        ),
        (
            "m.json",
            import_medheval,
            '[{"qid": 1, "img_name": "0.png", "question": "q", "answer": "\\udc00"}]',
            r"record 0: answer has \udc00, half of a surrogate pair",
        ),
    ],
)
def test_faults_of_every_json_importer_have_a_place(folder, name, run, content, said):
    (folder / name).write_text(content)
    with pytest.raises(InputError) as caught:
        run(folder / name, ImportOptions(), Silent())
    assert said in str(caught.value)


def test_faults_of_releases_have_a_place(tmp_path):
    trees.slake(tmp_path / "slake")
    path = next(path for path in (tmp_path / "slake").rglob("*.json") if "train" in path.name)
    records = json.loads(path.read_text(encoding="utf-8"))
    records[0]["question"] = "q \ud83d"
    path.write_text(json.dumps(records))
    with pytest.raises(InputError, match=r"record 0: question has .ud83d, half of a surrogate pair"):
        import_slake(tmp_path / "slake", ImportOptions(), Silent())


def test_faults_of_pickled_questions_have_a_place(tmp_path):
    trees.pathvqa(tmp_path)
    path = tmp_path / "pvqa" / "qas" / "val" / "val_qa.pkl"
    path.write_bytes(pickle.dumps([{"image": "val_0261", "question": "q \udc00", "answer": "a"}]))
    with pytest.raises(InputError, match=r"record 0: question has .udc00, half of a surrogate pair"):
        import_pathvqa(tmp_path, ImportOptions(), Silent())


def test_faults_of_annotations_have_a_place(tmp_path):
    trees.iu_xray(tmp_path)
    path = next(tmp_path.rglob("annotation.json"))
    splits = json.loads(path.read_text())
    next(iter(splits.values()))[0]["report"] = "clear \ud800"
    path.write_text(json.dumps(splits))
    with pytest.raises(InputError, match=r"annotation\.json: train\[0\]\.report has .ud800, half of a surrogate pair"):
        import_iu_xray(path, ImportOptions(), Silent())

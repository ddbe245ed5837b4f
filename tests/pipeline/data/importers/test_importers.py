"""Miniature trees with the quirks of the releases come in as documented; what is wrong is listed whole."""

import csv
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from medalign.errors import InputError
from medalign.pipeline.data.importers import (
    IMPORTERS,
    ImportOptions,
    import_folder,
    import_llava_json,
    import_nih_cxr,
    import_vqa_rad,
)
from medalign.pipeline.data.importers.chest.nih_cxr import FINDINGS, SPLIT_SHARES, question_of
from medalign.pipeline.data.importers.splits import drawn_split
from medalign.pipeline.data.manifest import Manifest
from medalign.progress import Silent
from PIL import Image

REAL_DATA = os.environ.get("MEDALIGN_REAL_DATA")
needs_real_data = pytest.mark.skipif(
    REAL_DATA is None, reason="MEDALIGN_REAL_DATA names no folder with vqa_rad/ and nih_cxr/"
)


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    def __str__(self):
        return "\n".join(self.lines)


def draw_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 9), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def rad_record(qid, image="a.jpg", **changes):
    return {
        "qid": qid,
        "phrase_type": "freeform",
        "image_name": image,
        "image_organ": "CHEST",
        "question": f"Question {qid}? ",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED",
        **changes,
    }


def rad_tree(folder, records, images=("a.jpg", "b.jpg", "unasked.jpg")):
    for seed, name in enumerate(images):
        draw_image(folder / "images" / name, seed)
    (folder / "vqa_rad.json").write_text(json.dumps(records))
    return folder


def rows_of(manifest):
    return {row["question_id"]: row for row in manifest.frame.iter_rows(named=True)}


def test_vqa_rad_keeps_its_split_and_loses_its_quirks(tmp_path):
    records = [
        rad_record("0"),
        rad_record(1, answer=4, answer_type="OPEN"),
        rad_record(2, answer_type="CLOSED ", phrase_type="test_freeform", image_organ="HEAD"),
        rad_record(3, image="b.jpg", phrase_type="test_para", answer=" left side"),
        rad_record(4, image="b.jpg", phrase_type="para", image_organ="ABD"),
    ]
    notes = Notes()
    manifest = import_vqa_rad(rad_tree(tmp_path, records), ImportOptions(), notes)
    rows = rows_of(manifest)
    assert manifest.splits == {"train": 3, "test": 2, "images": 1}
    assert [rows[f"vqa-rad-{qid}"]["split"] for qid in range(5)] == ["train", "train", "test", "test", "train"]
    assert rows["vqa-rad-0"]["question"] == "Question 0?"
    assert (rows["vqa-rad-1"]["answer"], rows["vqa-rad-1"]["answer_type"]) == ("4", "open")
    assert rows["vqa-rad-2"]["answer_type"] == "closed"
    assert rows["vqa-rad-3"]["answer"] == "left side"
    assert [rows[f"vqa-rad-{qid}"]["modality"] for qid in (0, 2, 4)] == ["X-ray", "CT or MRI", "CT"]
    assert {row["data_use"] for row in rows.values()} == {"public"}
    assert rows["image-unasked.jpg"]["question"] is None
    assert manifest.images()["image"].to_list() == ["a.jpg", "b.jpg", "unasked.jpg"]
    assert manifest.path_of("a.jpg").is_file()
    assert "2 images have questions in more than one split" in str(notes)


def test_vqa_rad_options_replace_split_and_data_use(tmp_path):
    options = ImportOptions(split="all", data_use="private")
    manifest = import_vqa_rad(rad_tree(tmp_path, [rad_record(1)], ("a.jpg",)), options, Silent())
    assert manifest.splits == {"all": 1}
    assert manifest.frame["data_use"].to_list() == ["private"]


def test_vqa_rad_lists_all_malformed_records(tmp_path):
    records = [
        rad_record(0),
        rad_record(1, answer_type="MAYBE"),
        "text",
        {key: value for key, value in rad_record(2).items() if key not in ("answer", "question")},
        rad_record(4, answer=["a"]),
    ]
    with pytest.raises(InputError) as caught:
        import_vqa_rad(rad_tree(tmp_path, records), ImportOptions(), Silent())
    message = str(caught.value)
    assert "4 of 5 records are malformed" in message
    assert "record 1: answer_type 'MAYBE' is neither OPEN nor CLOSED" in message
    assert "record 2: text, not an object" in message
    assert "record 3: no question, answer" in message
    assert "record 4: the answer is a list" in message


def test_vqa_rad_elsewhere_says_what_it_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"looked for vqa_rad\.json and VQA_RAD Dataset Public\.json"):
        import_vqa_rad(tmp_path, ImportOptions(), Silent())
    with pytest.raises(InputError, match="is not a folder"):
        import_vqa_rad(tmp_path / "none", ImportOptions(), Silent())
    (tmp_path / "vqa_rad.json").write_text("[{")
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="cannot be read as JSON"):
        import_vqa_rad(tmp_path, ImportOptions(), Silent())
    (tmp_path / "vqa_rad.json").write_text(json.dumps([rad_record(1), rad_record(2, image="b.jpg")]))
    with pytest.raises(InputError, match=r"2 of 2 image files are missing(.|\n)*a\.jpg(.|\n)*b\.jpg"):
        import_vqa_rad(tmp_path, ImportOptions(), Silent())


def talk(*texts, id="1", image="a.png", **more):
    messages = [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]
    record = {"id": id, "image": image, "conversations": messages, **more}
    return {key: value for key, value in record.items() if value is not None}


def llava_file(folder, records, name="train.json"):
    draw_image(folder / "a.png", 1)
    path = folder / name
    if name.endswith("jsonl"):
        path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n\n")
    else:
        path.write_text(json.dumps(records))
    return path


@pytest.mark.parametrize("name", ["train.json", "train.jsonl"])
def test_llava_turns_become_rows_with_history(tmp_path, name):
    records = [
        talk("<image>\nWhat is it?", "A lung.", "Which side?\n<image>".replace("<image>", ""), "Left", id=7),
        talk("What organ?\n<image>", 12, id="open", answer_type="OPEN", split="test", modality="CT"),
        talk("Say hello\u2028there.", "hello", id="text", image=None),
        talk("<image>\nUnanswered?", id="asked", domain={"mri": False, "ct_scan": True}),
        talk("<image>\nWhich?", "no", id="mc", option_A="yes", option_B="no", answer_type="CLOSED"),
    ]
    manifest = import_llava_json(llava_file(tmp_path, records, name), ImportOptions(), Silent())
    rows = rows_of(manifest)
    assert list(rows) == ["7-turn1", "7-turn2", "open", "text", "asked", "mc"]
    assert rows["7-turn1"]["question"] == "What is it?"
    assert rows["7-turn1"]["history"] == []
    assert rows["7-turn2"]["question"] == "Which side?"
    assert rows["7-turn2"]["history"] == [{"question": "What is it?", "answer": "A lung."}]
    assert rows["open"]["question"] == "What organ?"
    assert [rows["open"][key] for key in ("answer", "answer_type", "split", "modality")] == [
        "12",
        "open",
        "test",
        "CT",
    ]
    assert rows["text"]["image"] is None
    assert rows["text"]["question"] == "Say hello\u2028there."
    assert (rows["asked"]["answer"], rows["asked"]["modality"]) == (None, "ct_scan")
    assert (rows["mc"]["answer_type"], rows["mc"]["options"]) == ("choice", ["yes", "no"])
    assert {row["data_use"] for row in rows.values()} == {"private"}
    assert manifest.images().height == 1


def test_llava_speakers_of_other_tools_and_a_system_turn(tmp_path):
    renamed = talk("<image>\nWhat?", "x", "And?", "y", id="user")
    for message, speaker in zip(renamed["conversations"], ["user", "assistant"] * 2, strict=True):
        message["from"] = speaker
    briefed = talk("What?", "x", id="system")
    briefed["conversations"].insert(0, {"from": "system", "value": "You are helpful."})
    notes = Notes()
    rows = rows_of(import_llava_json(llava_file(tmp_path, [renamed, briefed]), ImportOptions(), notes))
    assert [(row["question"], row["answer"]) for row in rows.values()] == [
        ("What?", "x"),
        ("And?", "y"),
        ("What?", "x"),
    ]
    assert "1 conversation begins with a system message, which is skipped" in str(notes)
    briefed["conversations"].append({"from": "system", "value": "Stop."})
    with pytest.raises(InputError, match="message 3 should be from human, not from 'system'"):
        import_llava_json(llava_file(tmp_path, [briefed]), ImportOptions(), Silent())


@pytest.mark.parametrize("value", ["NaN", "null", '""', '" "', "Infinity"])
def test_llava_answers_that_are_not_there(tmp_path, value):
    path = llava_file(tmp_path, [talk("q?", "ANSWER"), talk("r?", "nan", id="2")])
    path.write_text(path.read_text().replace('"ANSWER"', value))
    notes = Notes()
    manifest = import_llava_json(path, ImportOptions(), notes)
    assert manifest.frame["answer"].to_list() == [None, "nan"]
    assert "1 of 2 questions have no reference answer (empty, null or NaN)" in str(notes)


def test_llava_files_of_other_editors(tmp_path):
    record = talk("one\u2028line?", 3.5, id=7)
    lines = [json.dumps({**record, "id": number}, ensure_ascii=False) for number in (7, 8)]
    llava_file(tmp_path, [])
    for name, content, rows in (
        ("bom.jsonl", "\ufeff" + "\r\n".join(lines) + "\r\n\r\n", 2),
        ("one.json", json.dumps(record, indent=2), 1),
        ("lines.json", "\n".join(lines), 2),
        ("list.json", "\ufeff" + json.dumps([record]), 1),
    ):
        (tmp_path / name).write_bytes(content.encode())
        manifest = import_llava_json(tmp_path / name, ImportOptions(), Silent())
        assert manifest.frame["question"].to_list() == ["one\u2028line?"] * rows
        assert set(manifest.frame["answer"]) == {"3.5"}
        assert manifest.frame["question_id"][0] == "7"
    (tmp_path / "cut.json").write_text(json.dumps([record, record], indent=2)[:-30])
    with pytest.raises(InputError, match=r"cut\.json cannot be read as JSON: "):
        import_llava_json(tmp_path / "cut.json", ImportOptions(), Silent())


def test_llava_splits_have_one_spelling(tmp_path):
    names = ("train", "Train", "val", "validate", "valid", "dev", "Validation ", "TEST", "holdout", None)
    records = [talk("q?", "a", id=number, split=name) for number, name in enumerate(names)]
    manifest = import_llava_json(llava_file(tmp_path, records), ImportOptions(), Silent())
    assert manifest.splits == {"train": 3, "validation": 5, "test": 1, "holdout": 1}


def test_llava_misspelt_key_is_read_as_in_released_files(tmp_path):
    record = talk("<image>\nWhat?", "x")
    record["conversatons"] = record.pop("conversations")
    manifest = import_llava_json(llava_file(tmp_path, [record]), ImportOptions(), Silent())
    assert manifest.frame["answer"].to_list() == ["x"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ImportOptions(),
            "2 records are in the split train, because no split is given; for others, pass --split train=",
        ),
        (ImportOptions(split="test"), ""),
        (ImportOptions(drawn_split="train=0.5,test=0.5"), ""),
    ],
)
def test_llava_records_without_a_split_are_said(tmp_path, options, said):
    records = [talk("a", "b", id="1"), talk("a", "b", id="2"), talk("a", "b", id="3", split="test")]
    notes = Notes()
    import_llava_json(llava_file(tmp_path, records), options, notes)
    assert said in str(notes)
    assert ("no split is given" in str(notes)) == bool(said)


def test_llava_ids_used_twice_are_numbered_and_said(tmp_path):
    records = [talk("a", "b", id=identity) for identity in ("7", "7", "7~2", "7")]
    notes = Notes()
    manifest = import_llava_json(llava_file(tmp_path, records), ImportOptions(split="val"), notes)
    assert manifest.frame["question_id"].to_list() == ["7", "7~3", "7~2", "7~4"]
    assert manifest.splits == {"validation": 4}
    assert "2 questions have the id of another one" in str(notes)


def test_llava_images_may_lie_elsewhere(tmp_path):
    draw_image(tmp_path / "pictures" / "a.png", 3)
    path = llava_file(tmp_path / "pictures", [talk("<image>\nq", "a")]).rename(tmp_path / "t.json")
    options = ImportOptions(images=tmp_path / "pictures")
    assert import_llava_json(path, options, Silent()).root == tmp_path / "pictures"
    with pytest.raises(InputError, match="1 of 1 image files are missing"):
        import_llava_json(path, ImportOptions(), Silent())


def test_llava_lists_every_malformed_record(tmp_path):
    wrong = {
        "a list, not an object": ["x"],
        "no id": {"conversations": []},
        "no conversations": {"id": "1"},
        "message 0 should be from human, not from 'gpt'": {
            "id": "1",
            "conversations": [{"from": "gpt", "value": "x"}],
        },
        "message 1 should be from gpt, not from 'human'": {
            "id": "1",
            "conversations": [{"from": "human", "value": "x"}] * 2,
        },
        "message 1 has no text": talk("a", ["x"]),
        "message 2 has no text": talk("a", "b", None),
        "an empty question": talk("<image>\n", "x"),
        "<image> in a conversation without an image": talk("<image>\na", "b", image=None),
        "<image> more than once": talk("<image><image>", "b"),
        "image has 7, which is not a file name": talk("a", "b", image=["a.png", 7]),
        "answer_type 'essay' is not one of": talk("a", "b", answer_type="essay"),
    }
    path = llava_file(tmp_path, [talk("a", "b"), *wrong.values()])
    with pytest.raises(InputError) as caught:
        import_llava_json(path, ImportOptions(), Silent())
    message = str(caught.value)
    assert f"{len(wrong)} of {len(wrong) + 1} records are malformed" in message
    for number, problem in enumerate(wrong, start=1):
        assert f"record {number}: {problem}" in message


def test_llava_broken_lines_are_named_by_line(tmp_path):
    path = llava_file(tmp_path, [talk("a", "b")], "train.jsonl")
    path.write_text(path.read_text() + "{broken\n" + json.dumps({"id": 3}))
    with pytest.raises(InputError, match=r"2 of 3 records(.|\n)*line 3: not JSON(.|\n)*line 4: no conversations"):
        import_llava_json(path, ImportOptions(), Silent())


def test_folder_takes_every_image_and_counts_the_rest(tmp_path):
    for seed, name in enumerate(("b.png", "deep/a.JPG", "deep/deeper/c.tif")):
        draw_image(tmp_path / name, seed)
    (tmp_path / "copy.png").write_bytes((tmp_path / "b.png").read_bytes())
    (tmp_path / "cut.png").write_bytes((tmp_path / "b.png").read_bytes()[:50])
    for name in ("notes.txt", "deep/more.TXT", "README"):
        (tmp_path / name).write_text("x")
    notes = Notes()
    manifest = import_folder(tmp_path, ImportOptions(), notes)
    assert manifest.frame["image"].to_list() == [
        "b.png",
        "copy.png",
        "cut.png",
        "deep/a.JPG",
        "deep/deeper/c.tif",
    ]
    assert manifest.questions.height == 0
    assert manifest.images().height == 4
    assert manifest.frame["pixel_hash"].null_count() == 1
    assert "3 files are not images by their name or content and are skipped: 2 .txt, 1 README" in str(notes)
    assert "1 of 5 images cannot be decoded" in str(notes)
    assert "1 image has more than one name" in str(notes)


def test_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "volume.nii").write_text("x")
    with pytest.raises(InputError, match=r"has no images(.|\n)*other files: 1 \.nii"):
        import_folder(tmp_path, ImportOptions(), Silent())
    with pytest.raises(InputError, match="is not a folder of images: it does not exist; pass"):
        import_folder(tmp_path / "none", ImportOptions(), Silent())


def nih_tree(folder, lines, suffix="jpg"):
    for seed, (stem, _, _) in enumerate(lines):
        draw_image(folder / "images_512" / f"{stem}.{suffix}", seed)
    with (folder / "nih_starter_labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Image Index", "Finding Labels", "Follow-up #", "Patient ID"])
        writer.writerows([f"{stem}.png", labels, 0, patient] for stem, labels, patient in lines)
    return folder


def many_patients(count=40):
    names = ("No Finding", "Effusion|Mass", "Pleural_Thickening", "Nodule", "Hernia|Edema|Effusion")
    return [
        (f"{90000000 + patient}_{visit:03}", names[(patient + visit) % len(names)], f"P{patient}X")
        for patient in range(count)
        for visit in range(2)
    ]


def test_nih_asks_one_present_and_one_absent_finding_per_image(tmp_path):
    lines = many_patients()
    manifest = import_nih_cxr(nih_tree(tmp_path, lines), ImportOptions(), Silent())
    wording = {question_of(label): label for label in (*FINDINGS, "No Finding")}
    by_image = manifest.frame.partition_by("image", as_dict=True)
    assert len(by_image) == len(lines)
    for stem, labels, _ in lines:
        rows = by_image[f"images_512/{stem}.jpg",]
        answers = {row["answer"]: wording[row["question"]] for row in rows.iter_rows(named=True)}
        assert set(answers) == {"yes", "no"}
        assert answers["yes"] in labels.split("|")
        assert answers["no"] not in labels.split("|")
    assert question_of("Pleural_Thickening") == "Is there evidence of pleural thickening in this chest radiograph?"


def test_nih_patients_are_disjoint_and_unnamed(tmp_path):
    lines = many_patients()
    manifest = import_nih_cxr(nih_tree(tmp_path, lines), ImportOptions(), Silent())
    patients = {stem: patient for stem, _, patient in lines}
    splits = {}
    for row in manifest.frame.iter_rows(named=True):
        splits.setdefault(patients[Path(row["image"]).stem], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}
    written = tmp_path / "m.parquet"
    manifest.write(written)
    text = str(Manifest.read(written).frame.drop("image").to_dicts())
    assert not any(patient in text for patient in patients.values())
    assert not any(str(stem)[:8] in text for stem in patients)


def test_nih_shares_of_patients_are_as_stated():
    counts = Counter(drawn_split(str(patient), SPLIT_SHARES, seed=3) for patient in range(4000))
    assert abs(counts["test"] / 4000 - 0.2) < 0.03
    assert abs(counts["validation"] / 4000 - 0.1) < 0.03


def test_nih_draws_depend_on_the_seed_alone(tmp_path):
    tree = nih_tree(tmp_path, many_patients(12))
    first = import_nih_cxr(tree, ImportOptions(seed=1), Silent())
    again = import_nih_cxr(tree, ImportOptions(seed=1), Silent())
    other = import_nih_cxr(tree, ImportOptions(seed=2), Silent())
    assert first.frame.equals(again.frame)
    assert not first.frame.equals(other.frame)


def test_nih_names_all_wrong_lines_and_unlabeled_images(tmp_path):
    lines = [("1_0", "Effusion", "1"), ("1_0", "Mass", "1"), ("2_0", "Flu|Cold", "2"), ("3_0", "Mass", "")]
    with pytest.raises(InputError) as caught:
        import_nih_cxr(nih_tree(tmp_path, lines), ImportOptions(), Silent())
    message = str(caught.value)
    assert "4 of 4 label lines are malformed" in message
    assert "line 2: image 1_0 appears 2 times" in message
    assert "line 4: unknown findings 'Flu', 'Cold'" in message
    assert "line 5: no image or no patient" in message
    good = nih_tree(tmp_path / "good", [("1_0", "Effusion", "1")])
    draw_image(good / "images_512" / "2_0.jpg", 2)
    notes = Notes()
    import_nih_cxr(good, ImportOptions(), notes)
    assert "1 image has no line in nih_starter_labels.csv" in str(notes)


def test_every_importer_is_offered_with_what_it_reads():
    published = {"vqa-rad", "slake", "pathvqa", "omnimedvqa", "iu-xray", "mimic-cxr", "medheval", "nih-cxr"}
    assert set(IMPORTERS) == {*published, "llava-json", "table", "folder"}
    assert all(name == importer.name and importer.reads for name, importer in IMPORTERS.items())


@needs_real_data
def test_the_real_vqa_rad():
    notes = Notes()
    manifest = import_vqa_rad(Path(REAL_DATA) / "vqa_rad", ImportOptions(), notes)
    assert manifest.images().height == 315
    assert manifest.questions.height == 2248
    assert manifest.splits == {"train": 1797, "test": 451, "images": 1}
    assert "202 images have questions in more than one split" in str(notes)


@needs_real_data
def test_the_real_nih_starter_set():
    manifest = import_nih_cxr(Path(REAL_DATA) / "nih_cxr", ImportOptions(), Silent())
    assert manifest.images().height == 621
    asked = {}
    for question, answer in manifest.frame.select("question", "answer").iter_rows():
        asked.setdefault(question, Counter())[answer] += 1
    assert len(asked) == 15
    assert sum((answers["yes"] for answers in asked.values()), 0) == 621
    guessed_right = sum(max(answers.values()) for answers in asked.values())
    assert guessed_right / len(manifest) < 0.56

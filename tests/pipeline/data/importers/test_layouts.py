"""Data sets in the layouts that people have them in: known by their files and read whole, or refused with a reason."""

import json
import pickle
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import release_trees as trees
from medalign.errors import InputError, SettingsError
from medalign.pipeline.data.import_manifest import import_manifest
from medalign.pipeline.data.manifest import Manifest
from medalign.progress import Silent


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    def __str__(self):
        return "\n".join(self.lines)


def imported(kind, source, out, **options):
    """The manifest as it was written, its rows by id, and the notes."""
    notes = Notes()
    given = {"split": None, "data_use": None, "images": None, "seed": None, "language": None, **options}
    report = import_manifest(kind, source, out, progress=notes, **given)
    manifest = Manifest.read(out)
    rows = {row["question_id"]: row for row in manifest.frame.iter_rows(named=True)}
    return report, manifest, rows, str(notes)


def bytes_of(manifest):
    return [manifest.path_of(name).read_bytes() for name in manifest.frame["image"]]


@pytest.mark.parametrize("kind", ["vqa-rad", "slake", "pathvqa", "table"])
def test_parquet_of_the_hub_is_read_with_its_images(tmp_path, kind):
    out = tmp_path / "made" / "m.parquet"
    report, manifest, rows, notes = imported(kind, trees.hub_copy(tmp_path / "hub"), out)
    assert manifest.splits == {"train": 3, "validation": 1, "test": 1}
    assert manifest.frame["question"].to_list() == ["is it?", "what?", "is it not?", "how many?", "where?"]
    assert manifest.frame["answer"].to_list() == ["yes", "liver", "No", None, "left"]
    assert manifest.frame["answer_type"].to_list() == ["closed", "open", "closed", None, "open"]
    first, second, third = trees.encoded(700), trees.encoded(701, "JPEG"), trees.encoded(702)
    assert bytes_of(manifest) == [first, first, second, third, third]
    assert manifest.root == tmp_path / "made" / "m-images"
    assert Counter(path.suffix for path in manifest.root.rglob("*.*")) == {".png": 2, ".jpg": 1}
    assert "layout: " in notes
    assert report.summary()["without_answer"] == 1
    assert set(manifest.frame["data_use"]) == {"private" if kind == "table" else "public"}
    assert len(rows) == 5
    assert "the id of another one" not in notes


def test_an_import_of_packed_images_can_be_repeated(tmp_path):
    source, out = trees.hub_copy(tmp_path / "hub"), tmp_path / "m.parquet"
    first = imported("vqa-rad", source, out)[1]
    written = {path: path.stat().st_mtime_ns for path in first.root.rglob("*.*")}
    damaged = first.path_of(first.frame["image"][0])
    damaged.write_bytes(b"cut")
    again = imported("vqa-rad", source, out)[1]
    assert again.frame.equals(first.frame)
    assert {path for path, time in written.items() if path.stat().st_mtime_ns == time} == set(written) - {damaged}
    assert bytes_of(again)[0] == trees.encoded(700)
    assert not list(first.root.rglob(".*"))


def test_a_manifest_among_the_parquet_files_is_not_read_as_one_of_them(tmp_path):
    source = trees.hub_copy(tmp_path / "hub")
    out = source / "data" / "m.parquet"
    assert len(imported("vqa-rad", source, out)[1]) == len(imported("vqa-rad", source, out)[1]) == 5


def test_pathvqa_of_the_hub_has_its_categories(tmp_path):
    _, _, rows, _ = imported("pathvqa", trees.hub_copy(tmp_path / "hub"), tmp_path / "m.parquet")
    assert [row["question_type"] for row in rows.values()] == ["yes/no", "what", "yes/no", "how many", "where"]
    assert {row["modality"] for row in rows.values()} == {"pathology"}


def test_parquet_in_parts_is_read_whole_or_not(tmp_path):
    source = trees.hub_copy(tmp_path / "hub")
    (source / "data" / "train-00000-of-00002-aa.parquet").unlink()
    with pytest.raises(InputError, match=r"has only some Parquet files of a split \(train: 1 of 2\)"):
        imported("vqa-rad", source, tmp_path / "m.parquet")
    pointer = source / "data" / "train-00000-of-00002-aa.parquet"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(InputError, match=r"it is only a Git LFS pointer; fetch the file with `git lfs pull`"):
        imported("vqa-rad", source, tmp_path / "m.parquet")
    pointer.write_bytes(b"PAR1cut")
    with pytest.raises(InputError, match=r"train-00000-of-00002-aa\.parquet cannot be read as Parquet: "):
        imported("vqa-rad", source, tmp_path / "m.parquet")


def test_parquet_as_the_hub_converts_it(tmp_path):
    for split in ("train", "test"):
        trees.hub_parquet(tmp_path / "hub" / "default" / split / "0000.parquet", [(trees.encoded(1), "q?", "yes")])
    assert imported("vqa-rad", tmp_path / "hub", tmp_path / "m.parquet")[1].splits == {"train": 1, "test": 1}


def test_slake_zipped_is_slake(tmp_path):
    plain = imported("slake", trees.slake(tmp_path / "plain"), tmp_path / "plain.parquet")[1]
    report, zipped, _, _ = imported("slake", trees.slake_zipped(tmp_path / "zip"), tmp_path / "zip.parquet")
    assert zipped.frame.equals(plain.frame)
    assert zipped.root == tmp_path / "zip-images" / "imgs"
    assert not list(zipped.root.rglob("._*"))
    assert imported("slake", tmp_path / "zip" / "Slake1.0", tmp_path / "zip.parquet")[1].frame.equals(plain.frame)
    assert "imgs.zip" in str(report.layout)


def test_a_zip_that_leaves_its_folder_or_is_cut_is_refused(tmp_path):
    tree = trees.slake_zipped(tmp_path)
    archive = tree / "imgs.zip"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r"imgs\.zip cannot be unpacked: File is not a zip file"):
        imported("slake", tree, tmp_path / "m.parquet")
    archive.write_bytes(whole.replace(b"imgs/xmlab1/detection.json", b"../../xmlab1/detection.js1"))
    with pytest.raises(InputError, match=r"entries that lead out of its folder; first: \.\./\.\./xmlab1"):
        imported("slake", tree, tmp_path / "m.parquet")


def test_iu_xray_of_kaggle(tmp_path):
    report, manifest, rows, notes = imported("iu-xray", trees.iu_kaggle(tmp_path / "iu"), tmp_path / "m.parquet")
    assert report.layout == "Kaggle's tables"
    assert manifest.splits == {"train": 1, "images": 2}
    asked = rows["iu-xray-1"]
    assert (asked["image"], asked["answer"], asked["question_type"]) == (
        "1_IM-0001-4001.dcm.png",
        "The cardiac silhouette is normal.",
        "report Frontal",
    )
    assert rows["iu-xray-2"]["question"] is None
    assert "1 of 3 reports have no image and are skipped" in notes
    assert "1 report is in the split train, because no split is given" in notes
    _, shares, _, notes = imported("iu-xray", tmp_path / "iu", tmp_path / "m.parquet", split="train=0.5,val=0.5")
    assert "no split is given" not in notes
    assert set(shares.questions["split"]) <= {"train", "validation"}


def test_iu_xray_of_kaggle_that_is_not_in_order(tmp_path):
    tree = trees.iu_kaggle(tmp_path / "iu")
    trees.write_csv(tree / "indiana_reports.csv", ("uid", "findings"), [(1, "a"), (1, "b"), (2, "c")])
    with pytest.raises(InputError, match=r"1 line repeats the uid of an earlier one; first: 1"):
        imported("iu-xray", tree, tmp_path / "m.parquet")
    trees.write_csv(tree / "indiana_reports.csv", ("uid", "findings"), [(1, "a")])
    with pytest.raises(InputError, match=r"1 uid is not in indiana_reports\.csv; first: 2"):
        imported("iu-xray", tree, tmp_path / "m.parquet")


def test_iu_xray_of_openi(tmp_path):
    _, manifest, rows, notes = imported("iu-xray", trees.iu_openi(tmp_path / "iu"), tmp_path / "m.parquet")
    assert rows["iu-xray-1"]["answer"] == "Heart & lungs are normal."
    assert rows["iu-xray-1"]["image"] == "CXR1_1_IM-0001-3001.png"
    assert list(rows) == [
        "iu-xray-1",
        "iu-xray-10",
        "image-CXR1_1_IM-0001-4001.png",
        "image-CXR7_spare.png",
    ]
    assert manifest.splits == {"train": 1, "images": 3}
    assert "1 of 3 reports have no image" in notes
    assert "1 report is in the split train, because no split is given" in notes
    (tmp_path / "iu" / "ecgen-radiology" / "3.xml").write_text("<eCitation>")
    with pytest.raises(InputError, match=r"1 of 4 reports are malformed:\n  - 3\.xml cannot be read as XML"):
        imported("iu-xray", tmp_path / "iu", tmp_path / "m.parquet")


def test_vqa_rad_of_mevf(tmp_path):
    for source in (trees.rad_mevf(tmp_path / "rad"), tmp_path / "rad" / "data_RAD"):
        report, manifest, rows, notes = imported("vqa-rad", source, tmp_path / "m.parquet")
        assert report.layout == "MEVF's preparation"
        assert manifest.splits == {"train": 2, "test": 1}
        assert list(rows) == ["vqa-rad-0", "vqa-rad-0~2", "vqa-rad-1"]
        assert rows["vqa-rad-1"]["answer"] is None
        assert "1 of 3 questions have no reference answer (empty, null or NaN)" in notes


def test_part_of_omnimedvqa(tmp_path):
    tree = trees.omnimedvqa(tmp_path / "om") / "OmniMedVQA"
    (tree / "QA_information" / "Open-access" / "._ACRIMA.json").write_bytes(b"\0\5\x16\7")
    for path in sorted((tree / "Images" / "ACRIMA").iterdir()):
        path.unlink()
    _, manifest, _, notes = imported("omnimedvqa", tree, tmp_path / "m.parquet")
    assert len(manifest) == 2
    assert "2 questions of data sets without any images are skipped: ACRIMA 2" in notes
    for path in [*tree.rglob("*.png"), *tree.rglob("*.jpg")]:
        path.unlink()
    with pytest.raises(InputError, match="none of the 6 questions has its image under"):
        imported("omnimedvqa", tree, tmp_path / "m.parquet")


@pytest.mark.parametrize("report", [None, float("nan"), "", " \n"])
def test_a_study_without_a_report_asks_nothing(tmp_path, report):
    tree = trees.iu_xray(tmp_path) / "iu_xray"
    splits = json.loads((tree / "annotation.json").read_text())
    splits["train"][0]["report"] = report
    trees.write_json(tree / "annotation.json", splits)
    row = imported("iu-xray", tree / "annotation.json", tmp_path / "m.parquet")[2]["iu-xray-CXR2384_IM-0942"]
    assert (row["question"], row["answer"], row["split"]) == (None, None, "images")


def test_the_sample_of_nih(tmp_path):
    tree = trees.nih_release(tmp_path / "nih", lists=False)
    (tree / "Data_Entry_2017_v2020.csv").rename(tree / "sample_labels.csv")
    _, manifest, _, notes = imported("nih-cxr", tree, tmp_path / "m.parquet")
    assert manifest.images().height == 80
    assert "has no train_val_list.txt and test_list.txt: patients are split at random" in notes


def test_the_annotation_of_r2gengpt(tmp_path):
    tree = trees.mimic_annotation(tmp_path)
    expected = imported("mimic-cxr", tree, tmp_path / "m.parquet")[1].frame
    (tree / "annotation.json").rename(tree / "mimic_annotation_all.json")
    report, manifest, _, _ = imported("mimic-cxr", tree, tmp_path / "m.parquet")
    assert manifest.frame.equals(expected)
    assert report.layout == "R2Gen's or R2GenGPT's annotation"
    trees.mimic_annotation(tmp_path)
    with pytest.raises(InputError, match=r"annotation\.json and mimic_annotation_all\.json; pass one"):
        imported("mimic-cxr", tree, tmp_path / "m.parquet")


def test_files_of_medheval(tmp_path):
    _, manifest, rows, _ = imported("medheval", trees.medheval(tmp_path), tmp_path / "m.parquet")
    assert [(row["answer"], row["answer_type"], row["options"]) for row in rows.values()] == [
        ("yes", "closed", None),
        ("Pneumonia", "choice", ["Edema", "Pneumonia", "Mass"]),
        ("CT", "choice", ["X-ray", "MRI", "CT"]),
        ("Black", "choice", ["Black", "White", "Gray, or D"]),
        ("B", "choice", ["A", "B"]),
        ("Clear lungs.", "report", None),
    ]
    assert [row["data_use"] for row in rows.values()] == ["public"] * 5 + ["credentialed"]
    assert manifest.splits == {"test": 6}


def test_nih_by_its_own_lists_and_never_its_masks(tmp_path):
    _, manifest, _, notes = imported("nih-cxr", trees.nih_release(tmp_path / "nih"), tmp_path / "m.parquet")
    assert manifest.frame["image"].str.starts_with("images_").all()
    patients = manifest.frame.with_columns(patient=pl.col("image").str.extract(r"(\d{8})_\d{3}\.png$").cast(pl.Int32))
    test = patients.filter(pl.col("split") == "test")["patient"].unique().sort().to_list()
    assert test == list(range(1, 9))
    assert patients.group_by("patient").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(manifest.splits) == {"train", "validation", "test"}
    assert "80 files outside of the images folders have the name of a labeled image and are skipped" in notes


def test_nih_files_that_may_be_either_are_refused(tmp_path):
    tree = trees.nih_release(tmp_path / "nih", lists=False)
    for number in (1, 2, 3):
        (tree / f"images_{number:03}").rename(tree / f"part_{number}")
    (tree / "part_1" / "images").rename(tree / "part_1" / "png")
    (tree / "part_2" / "images").rename(tree / "part_2" / "png")
    (tree / "part_3" / "images").rename(tree / "part_3" / "png")
    with pytest.raises(InputError, match=r"80 labeled images have several files .* masks/00000001_000\.png and part_1"):
        imported("nih-cxr", tree, tmp_path / "m.parquet")


def test_nih_lists_that_are_not_in_order(tmp_path):
    tree = trees.nih_release(tmp_path / "nih")
    lists = tree / "train_val_list.txt", tree / "test_list.txt"
    train, test = (path.read_text() for path in lists)
    for texts, said in (
        ((train, train.splitlines()[0] + "\n" + test), "1 image is in train_val_list.txt and in test_list.txt"),
        ((train, ""), "16 of 80 labeled images are in neither"),
    ):
        for path, text in zip(lists, texts, strict=True):
            path.write_text(text)
        with pytest.raises(InputError, match=said):
            imported("nih-cxr", tree, tmp_path / "m.parquet")
    lists[1].unlink()
    with pytest.raises(InputError, match=r"train_val_list\.txt exists without test_list\.txt: download it, or remove"):
        imported("nih-cxr", tree, tmp_path / "m.parquet")


def test_an_unknown_layout_lists_the_known_ones(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InputError) as caught:
        imported("vqa-rad", tmp_path, tmp_path / "m.parquet")
    message = str(caught.value)
    for marker in ("vqa_rad.json or VQA_RAD Dataset Public.json", "trainset.json", "data/*.parquet"):
        assert marker in message
    with pytest.raises(InputError, match=f"{tmp_path / 'none'} does not exist"):
        imported("vqa-rad", tmp_path / "none", tmp_path / "m.parquet")


def test_a_folder_where_a_file_is_expected_names_its_files(tmp_path):
    path = trees.medheval(tmp_path)
    for kind in ("medheval", "llava-json"):
        with pytest.raises(InputError, match=r"is a folder; pass one file, such as MM-VisHal\.json"):
            imported(kind, path.parent, tmp_path / "m.parquet")
    (tmp_path / "lab.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match="save a spreadsheet as CSV UTF-8"):
        imported("table", tmp_path / "lab.xlsx", tmp_path / "m.parquet")


def test_two_layouts_in_one_folder_are_a_question(tmp_path):
    source = trees.hub_copy(tmp_path / "rad")
    trees.rad_mevf(source)
    with pytest.raises(
        InputError, match=r"in several layouts:\n  MEVF's preparation: data_RAD/trainset\.json\n  Hugging"
    ):
        imported("vqa-rad", source, tmp_path / "m.parquet")
    assert len(imported("vqa-rad", source / "data", tmp_path / "m.parquet")[1]) == 5


def test_options_are_of_the_layout_that_was_found(tmp_path):
    with pytest.raises(SettingsError, match=r"--language zh: not used for slake from Hugging Face Parquet"):
        imported("slake", trees.hub_copy(tmp_path / "hub"), tmp_path / "m.parquet", language="zh")
    with pytest.raises(SettingsError, match="is published with its own split"):
        imported("iu-xray", trees.iu_xray(tmp_path / "iu"), tmp_path / "m.parquet", split="train=0.5,test=0.5")
    with pytest.raises(SettingsError, match=r"--images .*: .*not used, because .*hub contains its images"):
        imported("slake", tmp_path / "hub", tmp_path / "m.parquet", images=tmp_path)
    with pytest.raises(InputError, match=r"--images .*none is not a folder"):
        imported("vqa-rad", trees.rad_mevf(tmp_path / "rad"), tmp_path / "m.parquet", images=tmp_path / "none")


def test_an_image_folder_with_metadata(tmp_path):
    for split, name in (("train", "a.png"), ("validation", "b.png")):
        trees.draw(tmp_path / "set" / split / name, 3)
        trees.write_csv(
            tmp_path / "set" / split / "metadata.csv", ("file_name", "question", "answer"), [(name, "q?", "a")]
        )
    for kind in ("folder", "table"):
        manifest = imported(kind, tmp_path / "set", tmp_path / "m.parquet")[1]
        assert manifest.splits == {"train": 1, "validation": 1}
        assert manifest.frame["image"].to_list() == ["train/a.png", "validation/b.png"]
    for split in ("train", "validation"):
        (tmp_path / "set" / split / "metadata.csv").write_text("file_name,label\na.png,1\n")
    _, manifest, _, notes = imported("folder", tmp_path / "set", tmp_path / "m.parquet")
    assert manifest.splits == {"images": 2}
    assert "is skipped; its columns: file_name, label" in notes


def test_evaluation_records_of_llava_med(tmp_path):
    trees.draw(tmp_path / "images" / "a.jpg", 4)
    record = {"question_id": 0, "image": "a.jpg", "text": "What is this?\n<image>", "gpt4_answer": "CT"}
    path = tmp_path / "qa50.jsonl"
    path.write_text(json.dumps({**record, "domain": {"ct_scan": True, "mri": False}}) + "\n")
    _, manifest, rows, _ = imported("llava-json", path, tmp_path / "m.parquet")
    assert manifest.root == tmp_path / "images"
    row = rows["0"]
    assert [row[key] for key in ("question", "answer", "split", "modality")] == [
        "What is this?",
        "CT",
        "test",
        "ct_scan",
    ]


def test_image_lists_of_pubmedvision(tmp_path):
    for number in range(2):
        trees.draw(tmp_path / "images" / f"pmc_{number}_0.jpg", number)
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "x"}]
    records = [
        {"id": f"Alignment_VQA_{n}", "image": [f"images/pmc_{n}_0.jpg"], "conversations": turns, "body_part": "Chest"}
        for n in range(2)
    ]
    path = tmp_path / "PubMedVision_Alignment_VQA.json"
    trees.write_json(path, records)
    _, manifest, _, _ = imported("llava-json", path, tmp_path / "m.parquet")
    assert manifest.frame["image"].to_list() == ["images/pmc_0_0.jpg", "images/pmc_1_0.jpg"]
    assert set(manifest.frame["organ"]) == {"Chest"}
    records[0]["image"] = ["images/pmc_0_0.jpg", "images/pmc_1_0.jpg"]
    trees.write_json(path, records)
    _, manifest, _, _ = imported("llava-json", path, tmp_path / "m.parquet")
    further = [[image["image"] for image in images] for images in manifest.frame["more_images"].to_list()]
    assert manifest.frame["image"].to_list() == ["images/pmc_0_0.jpg", "images/pmc_1_0.jpg"]
    assert further == [["images/pmc_1_0.jpg"], []]


def test_names_that_repeat_are_never_the_last_one_silently(tmp_path):
    tree = trees.mimic_cxr(tmp_path, sections=True)
    trees.write_gzip_csv(tree / "mimic_cxr_sectioned.csv.gz", ("study", "findings"), [("s1", "a"), ("s1", "b")])
    with pytest.raises(InputError, match="1 line repeats the study of an earlier one; first: s1"):
        imported("mimic-cxr", tree, tmp_path / "m.parquet")
    trees.write_gzip_csv(
        tree / "mimic-cxr-2.0.0-metadata.csv.gz", ("dicom_id", "ViewPosition"), [("d", "PA"), ("d", "LATERAL")]
    )
    with pytest.raises(InputError, match="1 line repeats the dicom_id"):
        imported("mimic-cxr", tree, tmp_path / "m.parquet")
    slake = trees.slake(tmp_path / "slake")
    (slake / "mask.txt").write_text("1:Liver\n1:Kidney\n")
    with pytest.raises(InputError, match="line 2: 1 is Kidney, but Liver above"):
        imported("slake", slake, tmp_path / "m.parquet")
    iu = trees.iu_xray(tmp_path / "iu") / "iu_xray"
    splits = json.loads((iu / "annotation.json").read_text())
    splits["train"][0]["image_path"] = splits["val"][0]["image_path"]
    trees.write_json(iu / "annotation.json", splits)
    with pytest.raises(
        InputError, match=r"2 images are in two splits; first: CXR2279_IM-0865/0\.png in train and validation"
    ):
        imported("iu-xray", iu, tmp_path / "m.parquet")


def slake_with(tmp_path, answer):
    tree = trees.slake(tmp_path)
    trees.write_json(tree / "test.json", [trees.slake_question(1, 102, answer=answer)])
    return "slake", tree


def omnimedvqa_with(tmp_path, answer):
    tree = trees.omnimedvqa(tmp_path) / "OmniMedVQA"
    record = trees.omnimed_question(1, "ACRIMA", "Im553_g_ACRIMA.png", gt_answer=answer)
    trees.write_json(tree / "QA_information" / "Open-access" / "ACRIMA.json", [record])
    return "omnimedvqa", tree


def cares_with(tmp_path, answer):
    tree = trees.iu_xray(tmp_path) / "iu_xray"
    record = trees.cares_question("CXR3030_IM-1405/0.png", answer)
    (tree / "iuxray_factuality.jsonl").write_text(json.dumps(record))
    return "iu-xray", tree


def pathvqa_with(tmp_path, answer):
    tree = trees.pathvqa(tmp_path) / "pvqa"
    record = {"image": "test_0001", "question": "what?", "answer": answer}
    (tree / "qas" / "test" / "test_qa.pkl").write_bytes(pickle.dumps([record]))
    return "pathvqa", tree


def mevf_with(tmp_path, answer):
    tree = trees.rad_mevf(tmp_path) / "data_RAD"
    records = json.loads((tree / "testset.json").read_text())
    trees.write_json(tree / "testset.json", [{**records[0], "answer": answer}])
    return "vqa-rad", tree


@pytest.mark.parametrize("answer", [None, float("nan"), ""])
@pytest.mark.parametrize("data", [slake_with, omnimedvqa_with, cares_with, pathvqa_with, mevf_with])
def test_no_answer_is_null_in_every_importer(tmp_path, data, answer):
    kind, source = data(tmp_path, answer)
    report, manifest, _, notes = imported(kind, source, tmp_path / "m.parquet")
    empty = manifest.questions.filter(pl.col("answer").is_null()).height
    assert empty >= 1
    assert report.summary()["without_answer"] == empty
    assert f"{empty} of {manifest.questions.height} questions have no reference answer (empty, null or NaN)" in notes
    assert not manifest.frame["answer"].is_in(["nan", "None", ""]).any()


def test_linked_folders_are_looked_through(tmp_path):
    tree = trees.pathvqa(tmp_path / "vqa") / "pvqa"
    (tree / "images" / "test").rename(tmp_path / "elsewhere")
    (tree / "images" / "test").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tree)
    rows = imported("pathvqa", tree, tmp_path / "m.parquet")[2]
    assert [name for name in rows if name.startswith("image-")] == ["image-test/test_0000.jpg"]


def test_apple_double_files_are_no_images(tmp_path):
    tree = Path(trees.rad_mevf(tmp_path / "rad"))
    trees.draw(tree / "data_RAD" / "images" / "spare.jpg", 5)
    rows = imported("vqa-rad", tree, tmp_path / "m.parquet")[2]
    assert [name for name in rows if name.startswith("image-")] == ["image-spare.jpg"]

"""Miniature trees of the published data sets come in with their splits and regions; each quirk is told, not hidden."""

import json
import pickle
from collections import Counter

import pytest
import release_trees as trees
from medalign.errors import InputError
from medalign.pipeline.data.importers import (
    ImportOptions,
    import_iu_xray,
    import_mimic_cxr,
    import_omnimedvqa,
    import_pathvqa,
    import_slake,
)
from medalign.pipeline.data.importers.chest.cares import stated_answer
from medalign.pipeline.data.importers.visual_questions.pathvqa import question_type
from medalign.pipeline.data.label_images import read_label_image
from medalign.pipeline.data.manifest import Manifest
from medalign.progress import Silent


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    def __str__(self):
        return "\n".join(self.lines)


def imported(importer, source, **options):
    notes = Notes()
    manifest = importer(source, ImportOptions(**options), notes)
    return manifest, {row["question_id"]: row for row in manifest.frame.iter_rows(named=True)}, str(notes)


def test_slake_in_english_by_default(tmp_path):
    manifest, rows, notes = imported(import_slake, trees.slake(tmp_path))
    assert list(rows) == [
        "slake-0", "slake-2", "slake-1622", "slake-9835", "slake-11934", "image-xmlab640/source.jpg"
    ]  # fmt: skip
    assert manifest.splits == {"train": 3, "validation": 1, "test": 1, "images": 1}
    assert [rows["slake-2"][key] for key in ("question", "answer", "answer_type")] == [
        "How many livers are there?",
        "1",
        "open",
    ]
    test = rows["slake-11934"]
    assert [test[key] for key in ("question_type", "modality", "organ")] == ["KG", "X-Ray", "Chest_lung"]
    assert rows["slake-1622"]["answer"] is None
    assert "1 of 5 questions have no reference answer (empty, null or NaN)" in notes
    assert "5 questions are in en; skipped: 2 in zh" in notes
    assert {row["data_use"] for row in rows.values()} == {"public"}


def test_slake_in_other_languages(tmp_path):
    tree = trees.slake(tmp_path)
    assert imported(import_slake, tree, language="zh")[0].questions["question"].to_list() == ["图中包含肝脏吗?"] * 2
    every = imported(import_slake, tree.parent, language="all")
    assert every[0].questions.height == 7
    assert "questions are in" not in every[2]
    with pytest.raises(InputError, match=r"has no questions in 'de'; its languages: en \(5\), zh \(2\)"):
        import_slake(tree, ImportOptions(language="de"), Silent())


def region(name, mask=None, value=None, box=None):
    return {"name": name, "mask": mask, "value": value, "box": box}


def test_slake_masks_and_boxes_become_regions(tmp_path):
    tree = trees.slake(tmp_path)
    manifest, rows, notes = imported(import_slake, tree)
    assert rows["slake-0"]["regions"] == [
        region("Liver", "xmlab1/mask.png", 1, [0, 0, 4, 3]),
        region("Lung Cancer", "xmlab1/mask.png", 56),
        region("Kidney", box=[6, 1, 2, 2]),
        region("Kidney", box=[1, 4, 2, 2]),
    ]
    assert rows["slake-11934"]["regions"] == [
        region("Right Lung", "xmlab102/mask.png", 2, [0, 0, 2, 6]),
        region("Right Lung", "xmlab102/mask.png", 2, [2, 0, 2, 6]),
    ]
    assert rows["slake-9835"]["regions"] == rows["slake-1622"]["regions"] == []
    for said in (
        "2 images have no mask.png",
        "1 image has no detection.json; first: xmlab281",
        "1 image has an invalid mask, which is skipped; first: mask",
        "xmlab100/mask.png has 9x4 pixels, but its image has 9x6",
        "1 image has boxes without an area",
        "without a name in mask.txt, which are skipped; first: xmlab102/source.jpg: [77]",
    ):
        assert said in notes
    assert (read_label_image(manifest.path_of("xmlab1/mask.png"), 9, 6) == 56).sum() == 12
    written = tmp_path / "slake.parquet"
    manifest.write(written)
    assert Manifest.read(written).frame.equals(manifest.frame)


def test_slake_regions_in_the_names_of_a_copy(tmp_path):
    tree = trees.slake(tmp_path)
    folder = tree / "imgs" / "xmlab1"
    (folder / "mask.png").rename(folder / "mask_xmlab1.png")
    (tree / "validate.json").rename(tree / "validation.json")
    manifest, rows, _ = imported(import_slake, tree)
    assert rows["slake-0"]["regions"][0]["mask"] == "xmlab1/mask_xmlab1.png"
    assert manifest.splits["validation"] == 1


def test_slake_that_is_not_in_order(tmp_path):
    with pytest.raises(InputError, match=r"no question file: looked for train\.json, validate\.json"):
        import_slake(tmp_path, ImportOptions(), Silent())
    tree = trees.slake(tmp_path)
    (tree / "validate.json").unlink()
    assert "no questions for validation" in imported(import_slake, tree)[2]
    (tree / "mask.txt").write_text("1:Liver\n\nLung\n")
    with pytest.raises(InputError, match="line 3: 'Lung' is not `number:name`"):
        import_slake(tree, ImportOptions(), Silent())
    (tree / "mask.txt").unlink()
    _, rows, notes = imported(import_slake, tree)
    assert "masks have no names and are skipped" in notes
    assert [found["name"] for found in rows["slake-0"]["regions"]] == ["Liver", "Kidney", "Kidney"]
    trees.write_json(tree / "imgs" / "xmlab1" / "detection.json", [{"Liver": [1, 2, 3]}])
    with pytest.raises(InputError, match=r"the box of 'Liver' is \[1, 2, 3\]"):
        import_slake(tree, ImportOptions(), Silent())
    trees.write_json(tree / "test.json", [{"qid": 1}, trees.slake_question(2, 1, answer_type="MAYBE")])
    with pytest.raises(InputError, match=r"2 of 2 records(.|\n)*no img_name, question, answer(.|\n)*'MAYBE'"):
        import_slake(tree, ImportOptions(), Silent())


def test_pathvqa_with_its_splits(tmp_path):
    manifest, rows, notes = imported(import_pathvqa, trees.pathvqa(tmp_path))
    assert manifest.splits == {"train": 3, "validation": 1, "test": 2, "images": 1}
    assert [(row["answer"], row["answer_type"], row["question_type"]) for row in rows.values()] == [
        ("in the canals of hering", "open", "where"),
        ("yes", "closed", "yes/no"),
        ("4", "open", "how many"),
        ("neutrophils", "open", "what"),
        ("No", "closed", "yes/no"),
        ("nests of malignant cells", "open", "other"),
        (None, None, None),
    ]
    assert rows["pathvqa-3"]["image"] == "val/val_0261.jpg"
    assert "1 image without a question" in notes
    assert question_type("How much of it?") == "how much"
    assert question_type("however") == "other"


def test_pathvqa_never_runs_what_a_pickle_holds(tmp_path):
    tree = trees.pathvqa(tmp_path) / "pvqa"
    ran = tmp_path / "ran"

    class Harm:
        def __reduce__(self):
            return (ran.touch, ())

    path = tree / "qas" / "test" / "test_qa.pkl"
    path.write_bytes(pickle.dumps([Harm()]))
    with pytest.raises(InputError, match="may contain only plain values"):
        import_pathvqa(tree, ImportOptions(), Silent())
    assert not ran.exists()
    path.write_bytes(b"\x80garbage")
    with pytest.raises(InputError, match="is not a pickle of plain values"):
        import_pathvqa(tree, ImportOptions(), Silent())
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="contains an object"):
        import_pathvqa(tree, ImportOptions(), Silent())
    path.write_bytes(pickle.dumps([{"image": "test_0001", "question": None, "answer": "a"}]))
    with pytest.raises(InputError, match="record 0: no question"):
        import_pathvqa(tree, ImportOptions(), Silent())


def test_omnimedvqa_as_multiple_choice(tmp_path):
    manifest, rows, notes = imported(import_omnimedvqa, trees.omnimedvqa(tmp_path))
    assert list(rows) == ["ACRIMA_0000", "ACRIMA_0001", "Chest CT Scan_0000", "AIDA_0001"]
    assert {row["answer_type"] for row in rows.values()} == {"choice"}
    assert rows["ACRIMA_0000"]["options"] == ["PET scan", "CT scan", "Blood test", "Fundus imaging"]
    assert rows["ACRIMA_0001"]["options"] == ["No", "Yes"]
    assert rows["Chest CT Scan_0000"]["modality"] == "Fundus Photography"  # under the key `modality`
    assert [row["data_use"] for row in rows.values()] == ["public", "public", "public", "credentialed"]
    assert manifest.splits == {"test": 4}
    assert "2 questions about missing restricted images are skipped: AIDA 2" in notes
    assert "1 answer is not exactly one of its options; first: Chest CT Scan_0000" in notes


def test_omnimedvqa_that_is_not_in_order(tmp_path):
    with pytest.raises(InputError, match="no question files"):
        import_omnimedvqa(tmp_path, ImportOptions(), Silent())
    tree = trees.omnimedvqa(tmp_path) / "OmniMedVQA"
    (tree / "Images" / "ACRIMA" / "Im002_ACRIMA.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 4 image files are missing(.|\n)*Im002"):
        import_omnimedvqa(tree, ImportOptions(), Silent())
    bare = {key: value for key, value in trees.omnimed_question(0, "X", "a.png").items() if "option" not in key}
    trees.write_json(tree / "QA_information" / "Open-access" / "X.json", [bare])
    with pytest.raises(InputError, match="record 0: no options"):
        import_omnimedvqa(tree, ImportOptions(), Silent())


def test_iu_xray_reports_and_questions(tmp_path):
    manifest, rows, notes = imported(import_iu_xray, trees.iu_xray(tmp_path))
    assert manifest.splits == {"train": 1, "validation": 1, "test": 8, "images": 4}
    report = rows["iu-xray-CXR3030_IM-1405"]  # under the key of four blanks
    assert (report["split"], report["answer_type"], report["image"]) == ("test", "report", "CXR3030_IM-1405/0.png")
    assert report["answer"].startswith("Normal cardiomediastinal silhouette.")
    assert rows["image-CXR38_IM-1911/1.png"]["question"] is None
    asked = [rows[f"cares-iu-xray-{number}"] for number in range(6)]
    assert [row["answer"] for row in asked] == ["yes", "no", "no", None, None, "no"]
    assert {row["split"] for row in asked} == {"test"}
    assert all(row["question"].endswith("[yes, no]") for row in asked)
    assert "2 of 6 reference answers are neither yes nor no" in notes
    assert "4 images without a question" in notes


def test_iu_xray_files_one_by_one(tmp_path):
    tree = trees.iu_xray(tmp_path) / "iu_xray"
    assert imported(import_iu_xray, tree / "annotation.json")[0].questions.height == 4
    alone = imported(import_iu_xray, tree / "iuxray_factuality.jsonl")[0]
    assert alone.splits == {"test": 6}
    assert imported(import_iu_xray, tree, split="all")[0].splits == {"all": 10, "images": 4}
    (tree / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no image folder"):
        import_iu_xray(tree, ImportOptions(), Silent())
    assert imported(import_iu_xray, tree, images=tmp_path / "elsewhere")[0].root == tmp_path / "elsewhere"
    with pytest.raises(InputError, match=r"looked for annotation\.json, iuxray_factuality\.jsonl"):
        import_iu_xray(tmp_path / "elsewhere", ImportOptions(), Silent())


def test_an_annotation_that_is_not_in_order(tmp_path):
    tree = trees.iu_xray(tmp_path) / "iu_xray"
    splits = json.loads((tree / "annotation.json").read_text())
    splits["val"] = [{"id": "1", "report": "x"}, {**splits["val"][0], "image_path": "0.png"}]
    trees.write_json(tree / "annotation.json", splits)
    with pytest.raises(InputError, match=r"2 of 2 records of 'val'(.|\n)*no image_path(.|\n)*not a list of file names"):
        import_iu_xray(tree, ImportOptions(), Silent())
    splits = {"    ": [{key: value for key, value in splits["train"][0].items() if key != "split"}]}
    trees.write_json(tree / "annotation.json", splits)
    with pytest.raises(InputError, match="no split: neither its own field nor the key of its list has one"):
        import_iu_xray(tree, ImportOptions(), Silent())
    trees.write_json(tree / "annotation.json", [1])
    with pytest.raises(InputError, match="not an R2Gen annotation"):
        import_iu_xray(tree, ImportOptions(), Silent())


def test_cares_answers_begin_with_yes_or_no():
    assert [stated_answer(text) for text in ("Yes.", "- No", "no, as", "(Yes)")] == ["yes", "no", "no", "yes"]
    assert [stated_answer(text) for text in ("", "Nothing", "The answer is no", "None")] == [None] * 4


@pytest.mark.parametrize("sections", [False, True])
def test_mimic_cxr_in_its_official_split(tmp_path, sections):
    manifest, rows, notes = imported(import_mimic_cxr, trees.mimic_cxr(tmp_path, sections))
    assert manifest.splits == {"train": 2, "validation": 1, "test": 1, "images": 1}
    assert set(manifest.questions["answer"]) == {
        "There is no focal consolidation, pleural effusion or pneumothorax. The heart is normal."
    }
    kinds = Counter(manifest.questions["question_type"])
    assert kinds == {"report PA": 1, "report LATERAL": 1, "report AP": 1, "report": 1}
    assert {row["data_use"] for row in rows.values()} == {"credentialed"}
    assert manifest.path_of(manifest.frame["image"][0]).is_file()
    assert "1 study has no report" in notes


def test_mimic_cxr_in_parts(tmp_path):
    tree = trees.mimic_cxr(tmp_path)
    (tree / "files" / trees.mimic_image(*trees.MIMIC_IMAGES[0][:3])).unlink()
    (tree / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    manifest, _, notes = imported(import_mimic_cxr, tree)
    assert manifest.splits["train"] == 1
    assert "1 of 5 images of the split are missing; first: p10/p10000032" in notes
    assert "views are unknown" in notes
    (tree / "mimic-cxr-reports").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="has no reports: looked for mimic_cxr_sectioned"):
        import_mimic_cxr(tree, ImportOptions(), Silent())
    with pytest.raises(InputError, match="none of the 5 images of the split exists under"):
        import_mimic_cxr(tree, ImportOptions(images=tmp_path / "gone"), Silent())
    trees.write_gzip_csv(tree / "mimic-cxr-2.0.0-split.csv.gz", trees.SPLIT_COLUMNS, [("a", "1", "", "train")])
    with pytest.raises(InputError, match=r"1 of 1 lines are malformed(.|\n)*record 0: an empty field"):
        import_mimic_cxr(tree, ImportOptions(), Silent())
    (tree / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(b"\x1f\x8bno")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        import_mimic_cxr(tree, ImportOptions(), Silent())


def test_mimic_cxr_as_r2gen_prepared_it(tmp_path):
    manifest, rows, _ = imported(import_mimic_cxr, trees.mimic_annotation(tmp_path))
    assert manifest.splits == {"train": 2, "validation": 1, "test": 3}
    assert rows["cares-mimic-cxr-0"]["answer"] == "yes"
    assert rows["cares-mimic-cxr-0"]["split"] == "test"
    assert rows[f"mimic-cxr-{trees.MIMIC_IMAGES[0][2]}"]["answer"] == (
        "There is no focal consolidation. The heart is normal."
    )
    trees.mimic_cxr(tmp_path)
    with pytest.raises(InputError, match=r"has the official split .* and R2Gen's .* which differ"):
        import_mimic_cxr(tmp_path, ImportOptions(), Silent())
    assert imported(import_mimic_cxr, tmp_path / "annotation.json")[0].questions.height == 5

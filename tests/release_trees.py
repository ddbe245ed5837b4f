"""Miniature trees of published data sets: the names, nesting, fields and quirks of the releases, tiny images.

Each function writes one data set below a folder and returns the folder that `data import` is given.
"""

import csv
import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SLAKE_LABELS = "1:Liver\n2:Right Lung\n3:Left Lung\n56:Lung Cancer"
"""The last line of mask.txt ends without a line break."""


def draw(path: Path, seed: int, size: tuple[int, int] = (9, 6)) -> Path:
    """A random gray image, the same for the same seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, size[::-1], dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def slake_question(qid: int, image: int, **changes: object) -> dict[str, object]:
    return {
        "img_id": image,
        "img_name": f"xmlab{image}/source.jpg",
        "question": "Does the picture contain liver?",
        "answer": "Yes",
        "q_lang": "en",
        "location": "Abdomen",
        "modality": "MRI",
        "answer_type": "CLOSED",
        "base_type": "vqa",
        "content_type": "Organ",
        "triple": ["vhead", "_", "_"],
        "qid": qid,
        **changes,
    }


def slake(folder: Path) -> Path:
    """Slake1.0: questions in two languages, an empty answer, masks of equal channels, boxes, an image without both."""
    tree = folder / "Slake1.0"
    chinese = {"question": "图中包含肝脏吗?", "answer": "包含", "q_lang": "zh"}
    lung = {"location": "Chest_lung", "modality": "X-Ray"}
    write_json(
        tree / "train.json",
        [
            slake_question(0, 1),
            slake_question(1, 1, **chinese),
            slake_question(2, 1, question="How many livers are there? ", answer="1", answer_type="OPEN"),
            slake_question(1622, 281, answer="", answer_type="OPEN", **lung),
        ],
    )
    write_json(tree / "validate.json", [slake_question(9835, 100, answer="No"), slake_question(9836, 100, **chinese)])
    write_json(tree / "test.json", [slake_question(11934, 102, content_type="KG", base_type="kvqa", **lung)])
    (tree / "mask.txt").write_text(SLAKE_LABELS)
    write_json(tree / "KG" / "en_organ.csv", "not read")
    for image in (1, 281, 100, 102, 640):
        draw(tree / "imgs" / f"xmlab{image}" / "source.jpg", image)
    _slake_regions(tree / "imgs")
    return tree


def _slake_regions(images: Path) -> None:
    numbers = np.zeros((6, 9), np.uint8)
    numbers[:3, :4] = 1
    numbers[3:, 5:] = 56
    Image.fromarray(np.stack([numbers] * 3, axis=-1)).save(images / "xmlab1" / "mask.png")
    write_json(
        images / "xmlab1" / "detection.json",
        [{"Liver": [0, 0, 4, 3]}, {"Kidney": [6, 1, 2, 2]}, {"Kidney": [1, 4, 2, 2]}],
    )
    numbers = np.zeros((6, 9), np.uint8)
    numbers[:, :4], numbers[0, 8] = 2, 77
    Image.fromarray(numbers).save(images / "xmlab102" / "mask.png")
    write_json(images / "xmlab102" / "detection.json", [{"right_lung": [0, 0, 2, 6]}, {"Right Lung": [2, 0, 2, 6]}])
    Image.fromarray(numbers[:4]).save(images / "xmlab100" / "mask.png")  # another size than its image
    write_json(images / "xmlab100" / "detection.json", [{"Spleen": [2.5, 1, 0, 4]}])
    write_json(images / "xmlab640" / "detection.json", [])


def pathvqa(folder: Path) -> Path:
    """pvqa/: pickled questions, images without an ending in their name, one image that nothing is asked about."""
    tree = folder / "pvqa"
    asked = {
        "train": [
            {
                "image": "train_0422",
                "question": "Where are liver stem cells (oval cells) located?",
                "answer": "in the canals of hering",
            },
            {"image": "train_0422", "question": "Are liver stem cells present?", "answer": "yes"},
            {"image": "train_0422", "question": "How many cells are shown?", "answer": 4},
        ],
        "val": [{"image": "val_0261", "question": "What have lost their nuclei?", "answer": "neutrophils"}],
        "test": [
            {"image": "test_0001", "question": "is squamous cell carcinoma composed of nests?", "answer": "No"},
            {"image": "test_0001", "question": "by what is it composed?", "answer": "nests of malignant cells"},
        ],
    }
    for number, (split, records) in enumerate(asked.items()):
        path = tree / "qas" / split / f"{split}_qa.pkl"
        path.parent.mkdir(parents=True)
        path.write_bytes(pickle.dumps(records))
        draw(tree / "images" / split / f"{records[0]['image']}.jpg", 300 + number)
    draw(tree / "images" / "test" / "test_0000.jpg", 310)
    (tree / "qas" / "test_vqa.pkl").write_bytes(pickle.dumps([{"img_id": "test_0001", "sent": "not read"}]))
    return folder


def omnimed_question(number: int, dataset: str, image: str, **changes: object) -> dict[str, object]:
    return {
        "dataset": dataset,
        "question_id": f"{dataset}_{number:04}",
        "question_type": "Modality Recognition",
        "question": "What imaging technique was employed to obtain this picture?",
        "gt_answer": "Fundus imaging",
        "image_path": f"Images/{dataset}/{image}",
        "option_A": "PET scan",
        "option_B": "CT scan",
        "option_C": "Blood test",
        "option_D": "Fundus imaging",
        "modality_type": "Fundus Photography",
        **changes,
    }


def omnimedvqa(folder: Path) -> Path:
    """OmniMedVQA/: open and restricted question files, two options, a misnamed key, an answer that is no option."""
    tree = folder / "OmniMedVQA"
    scan = omnimed_question(0, "Chest CT Scan", "train/adeno carcinoma/1.png", gt_answer="CT", option_B="CT.")
    scan["modality"] = scan.pop("modality_type")
    normal = omnimed_question(
        1,
        "ACRIMA",
        "Im002_ACRIMA.jpg",
        question_type="Disease Diagnosis",
        gt_answer="No",
        option_A="No",
        option_B="Yes",
    )
    del normal["option_C"]
    normal["option_D"] = None
    write_json(
        tree / "QA_information" / "Open-access" / "ACRIMA.json",
        [omnimed_question(0, "ACRIMA", "Im553_g_ACRIMA.png"), normal],
    )
    write_json(tree / "QA_information" / "Open-access" / "Chest CT Scan.json", [scan])
    restricted = [omnimed_question(number, "AIDA", f"{number}.png") for number in range(3)]
    write_json(tree / "QA_information" / "Restricted-access" / "AIDA.json", restricted)
    for seed, name in enumerate(("ACRIMA/Im553_g_ACRIMA.png", "ACRIMA/Im002_ACRIMA.jpg", "AIDA/1.png")):
        draw(tree / "Images" / name, 400 + seed)
    draw(tree / "Images" / "Chest CT Scan" / "train" / "adeno carcinoma" / "1.png", 410)
    return folder


def iu_study(name: str, report: str, split: str, images: int = 2) -> dict[str, object]:
    return {"id": name, "report": report, "image_path": [f"{name}/{n}.png" for n in range(images)], "split": split}


def iu_xray(folder: Path) -> Path:
    """iu_xray/ of R2Gen: two views a study, the test split under a key of four blanks; CARES's questions beside it."""
    tree = folder / "iu_xray"
    studies = {
        "train": [iu_study("CXR2384_IM-0942", "A large hiatal hernia is noted. The lungs are clear.", "train")],
        "val": [iu_study("CXR2279_IM-0865", "Heart size is enlarged.", "val")],
        "    ": [
            iu_study("CXR3030_IM-1405", "Normal cardiomediastinal silhouette. There are no XXXX of effusion.", "test"),
            iu_study("CXR38_IM-1911", "Lungs are clear.", "test"),
        ],
    }
    write_json(tree / "annotation.json", studies)
    for seed, study in enumerate(study for listed in studies.values() for study in listed):
        for view, name in enumerate(study["image_path"]):
            draw(tree / "images" / name, 500 + 10 * seed + view)
    answers = ("Yes.", "- No", "No (since the lungs are clear).", "The report does not say.", "", "NO")
    (tree / "iuxray_factuality.jsonl").write_text(
        "".join(json.dumps(cares_question("CXR3030_IM-1405/0.png", answer)) + "\n" for answer in answers)
    )
    return folder


def cares_question(image: str, answer: str) -> dict[str, object]:
    text = "Are the lungs clear in the chest X-ray? Please choose from the following two options: [yes, no]\n<image>"
    return {"question": text, "answer": answer, "image": image, "question_id": 0, "text": text}


MIMIC_REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset ascites  // eval for infection

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation, pleural effusion or
 pneumothorax.  The heart is normal.

 IMPRESSION:

 No acute cardiopulmonary process.
"""

SPLIT_COLUMNS = ("dicom_id", "study_id", "subject_id", "split")
MIMIC_IMAGES = (
    # subject, study, image, split, view
    ("10000032", "50414267", "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014", "train", "PA"),
    ("10000032", "50414267", "174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962", "train", "LATERAL"),
    ("10000764", "57375967", "096052b7-d256dc40-453a102b-fa7d01c6-1b22c6b4", "validate", "AP"),
    ("10003502", "50084553", "70d7e600-373c1311-929f5ff9-23ee3621-ff551ff9", "test", ""),
    ("10003502", "52139270", "8cdf8d10-2c3c8a3f-5a0b7b0d-0f0b9b0d-0f0b9b0e", "test", "AP"),
)


def mimic_image(subject: str, study: str, image: str) -> str:
    return f"p{subject[:2]}/p{subject}/s{study}/{image}.jpg"


def mimic_cxr(folder: Path, sections: bool = False) -> Path:
    """MIMIC-CXR-JPG with gzipped tables; reports as text files or as sections; the last study's has no findings."""
    folder.mkdir(parents=True, exist_ok=True)
    split = [(image, study, subject, name) for subject, study, image, name, _ in MIMIC_IMAGES]
    write_gzip_csv(folder / "mimic-cxr-2.0.0-split.csv.gz", SPLIT_COLUMNS, split)
    views = [(image, subject, study, "CHEST (PA AND LAT)", view) for subject, study, image, _, view in MIMIC_IMAGES]
    header = ("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition")
    write_gzip_csv(folder / "mimic-cxr-2.0.0-metadata.csv.gz", header, views)
    reports = {}
    for seed, (subject, study, image, _, _) in enumerate(MIMIC_IMAGES):
        draw(folder / "files" / mimic_image(subject, study, image), 600 + seed)
        whole = seed < len(MIMIC_IMAGES) - 1
        reports[subject, study] = MIMIC_REPORT if whole else MIMIC_REPORT.replace("FINDINGS:", "NARRATIVE:")
    if sections:
        finding = " There is no focal consolidation, pleural effusion or\n pneumothorax.  The heart is normal."
        lines = [
            (f"s{study}", "No acute process.", finding if "FINDINGS" in text else "", "", "None.")
            for (_, study), text in reports.items()
        ]
        header = ("study", "impression", "findings", "last_paragraph", "comparison")
        write_gzip_csv(folder / "mimic_cxr_sectioned.csv.gz", header, lines)
        return folder
    for (subject, study), text in reports.items():
        path = folder / "mimic-cxr-reports" / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def mimic_annotation(folder: Path) -> Path:
    """R2Gen's MIMIC-CXR: one record for every image, which carries its study's report; CARES's questions beside it."""
    splits: dict[str, list[dict[str, object]]] = {"train": [], "val": [], "test": []}
    for seed, (subject, study, image, name, _) in enumerate(MIMIC_IMAGES):
        record = {
            "id": image,
            "study_id": int(study),
            "subject_id": int(subject),
            "report": " There is no focal consolidation. \n The heart is\n normal.",
            "image_path": [mimic_image(subject, study, image)],
            "split": "val" if name == "validate" else name,
        }
        splits[str(record["split"])].append(record)
        draw(folder / "images" / mimic_image(subject, study, image), 600 + seed)
    write_json(folder / "annotation.json", splits)
    question = {"question_id": 2, "question": "Are the lungs clear?\n<image>", "answer": "Yes."}
    question["image"] = mimic_image(*MIMIC_IMAGES[3][:3])
    (folder / "mimic_factuality.jsonl").write_text(json.dumps(question) + "\n\n")
    return folder


def write_gzip_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    content = io.StringIO(newline="")
    csv.writer(content).writerows([header, *rows])
    path.write_bytes(gzip.compress(content.getvalue().encode()))


HUB_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(seed: int, suffix: str = "PNG") -> bytes:
    """A random gray image as the bytes of a file."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 9), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, suffix)
    return content.getvalue()


def hub_parquet(path: Path, rows: list[tuple[bytes | None, str, object]]) -> Path:
    """One file of a data set of the Hugging Face hub: image struct, question, answer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([None if data is None else {"bytes": data, "path": None} for data, _, _ in rows], HUB_IMAGE)
    table = pa.table({"image": images, "question": [row[1] for row in rows], "answer": [row[2] for row in rows]})
    pq.write_table(table, path)
    return path


def hub_copy(folder: Path) -> Path:
    """`data/SPLIT-00000-of-0000N.parquet`: an image with two questions, and the train split in two parts."""
    first, second, third = encoded(700), encoded(701, "JPEG"), encoded(702)
    data = folder / "data"
    hub_parquet(data / "train-00000-of-00002-aa.parquet", [(first, "is it?", "yes"), (first, "what?", "liver")])
    hub_parquet(data / "train-00001-of-00002-aa.parquet", [(second, "is it not?", "No")])
    hub_parquet(data / "validation-00000-of-00001-aa.parquet", [(third, "how many?", None)])
    hub_parquet(data / "test-00000-of-00001-aa.parquet", [(third, "where?", "left")])
    return folder


def slake_zipped(folder: Path) -> Path:
    """SLAKE as the Hugging Face hub has it: imgs.zip, as macOS writes it, instead of imgs/."""
    tree = slake(folder)
    (tree / "validate.json").rename(tree / "validation.json")
    with zipfile.ZipFile(tree / "imgs.zip", "w") as archive:
        for path in sorted((tree / "imgs").rglob("*.*")):
            archive.write(path, path.relative_to(tree).as_posix())
        archive.writestr("__MACOSX/imgs/xmlab1/._source.jpg", b"\0\5\x16\7")
        archive.writestr("imgs/xmlab1/._source.jpg", b"\0\5\x16\7")
    for path in sorted((tree / "imgs").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tree / "imgs").rmdir()
    return tree


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def iu_kaggle(folder: Path) -> Path:
    """Kaggle's IU X-Ray: the lateral view first, a report without findings, a report without images."""
    reports = [
        (1, "normal", "The cardiac silhouette is\n normal.", "Normal chest."),
        (2, "normal", "", "No change."),
        (3, "normal", "Lungs are clear.", ""),
    ]
    write_csv(folder / "indiana_reports.csv", ("uid", "MeSH", "findings", "impression"), reports)
    shots = [
        (1, "1_IM-0001-3001.dcm.png", "Lateral"),
        (1, "1_IM-0001-4001.dcm.png", "Frontal"),
        (2, "2_IM-0652-1001.dcm.png", "Frontal"),
    ]
    write_csv(folder / "indiana_projections.csv", ("uid", "filename", "projection"), shots)
    for seed, (_, name, _) in enumerate(shots):
        draw(folder / "images" / "images_normalized" / name, 800 + seed)
    return folder


OPENI_REPORT = """<?xml version="1.0"?>
<eCitation>
  <uId id="CXR{number}"/>
  <MedlineCitation><Article><Abstract>
    <AbstractText Label="COMPARISON">None.</AbstractText>
    <AbstractText Label="FINDINGS">{findings}</AbstractText>
    <AbstractText Label="IMPRESSION">Normal.</AbstractText>
  </Abstract></Article></MedlineCitation>
  {images}
</eCitation>
"""


def iu_openi(folder: Path) -> Path:
    """OpenI's IU X-Ray: two views a report, a report without images, an image that no report names."""
    views = {1: ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"), 2: (), 10: ("CXR10_IM-0002-1001",)}
    for number, images in views.items():
        named = "".join(f'<parentImage id="{image}"><panel type="single"/></parentImage>' for image in images)
        findings = "Heart &amp; lungs are\nnormal." if number == 1 else ""
        path = folder / "ecgen-radiology" / f"{number}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(OPENI_REPORT.format(number=number, findings=findings, images=named))
    for seed, image in enumerate(image for images in (*views.values(), ("CXR7_spare",)) for image in images):
        draw(folder / "NLMCXR_png" / f"{image}.png", 820 + seed)
    return folder


def rad_mevf(folder: Path) -> Path:
    """VQA-RAD as MEVF prepared it: a file for each split, ids that both use, an answer that is NaN."""
    tree = folder / "data_RAD"
    record = {
        "phrase_type": "freeform",
        "image_name": "synpic1.jpg",
        "image_organ": "CHEST",
        "question": "Is it clear?",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED",
    }
    write_json(tree / "trainset.json", [{**record, "qid": "0"}, {**record, "qid": "0", "question": "Clear, is it?"}])
    asked = {**record, "qid": 1, "image_name": "synpic2.jpg", "phrase_type": "para", "answer": float("nan")}
    write_json(tree / "testset.json", [asked])
    for seed, name in enumerate(("synpic1.jpg", "synpic2.jpg")):
        draw(tree / "images" / name, 840 + seed)
    (tree / "images" / "._synpic1.jpg").write_bytes(b"\0\5\x16\7")
    return folder


def nih_release(folder: Path, lists: bool = True) -> Path:
    """ChestX-ray14 with its lists, images in numbered folders, and masks of the same names."""
    patients = [f"{patient:08}_{visit:03}" for patient in range(1, 41) for visit in range(2)]
    rows = [(f"{stem}.png", "Effusion" if stem.endswith("1") else "No Finding", 0, int(stem[:8])) for stem in patients]
    header = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID")
    write_csv(folder / "Data_Entry_2017_v2020.csv", header, rows)
    for seed, stem in enumerate(patients):
        draw(folder / f"images_{1 + seed % 3:03}" / "images" / f"{stem}.png", 900 + seed)
        draw(folder / "masks" / f"{stem}.png", 0)
    if lists:
        tested = {stem for stem in patients if int(stem[:8]) <= 8}
        names = {
            "train_val_list.txt": [stem for stem in patients if stem not in tested],
            "test_list.txt": sorted(tested),
        }
        for name, stems in names.items():
            (folder / name).write_bytes("\r\n".join(f"{stem}.png" for stem in stems).encode() + b"\r\n")
    return folder


def medheval(folder: Path) -> Path:
    """MedHEval: yes/no, lettered choices in its four notations, an answer that begins with yes, a MIMIC image."""
    base = {
        "img_name": "xmlab1/source.jpg",
        "question_type": "binary",
        "choices": "",
        "location": "Lung",
        "modality": "CT",
    }
    chosen = {**base, "question_type": "multi-choice"}
    mimic = mimic_image(*MIMIC_IMAGES[0][:3])
    records = [
        {**base, "qid": 0, "question": "Is it?", "answer": "Yes, it is."},
        {
            **chosen,
            "qid": 1,
            "question": "Which?",
            "answer": "B. Pneumonia",
            "choices": "A. Edema, B. Pneumonia, C. Mass",
        },
        {**chosen, "qid": 2, "question": "Which?", "answer": "C", "choices": "A: X-ray, B: MRI, C: CT"},
        {**chosen, "qid": 3, "question": "Which?", "answer": "Black", "choices": "A. Black B. White C. Gray, or D"},
        {**chosen, "qid": 4, "question": "(A) MRI (B) CT?", "answer": "B", "choices": "A, B"},
        {"qid": 5, "img_name": mimic, "question": "Generate a medical report now.", "answer": "Clear lungs."},
    ]
    draw(folder / "images" / "xmlab1" / "source.jpg", 1)
    draw(folder / "images" / mimic, 2)
    write_json(folder / "MM-VisHal.json", records)
    return folder / "MM-VisHal.json"

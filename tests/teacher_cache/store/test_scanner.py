"""Stores contain no name, path, id or date of a patient in any encoding, and the scanner finds planted ones."""

import base64
import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zarr
from dicoms import picture, written
from medalign.pipeline.data.importers import ImportOptions, import_folder
from medalign.progress import Silent
from medalign.teacher_cache.extraction.stage_one import ImageSource
from medalign.teacher_cache.images import UnreadableImage, decode_image
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.store import HashKey, open_store
from odd_rasters import gray_scene, saved, scene
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scanner import find_words

WORDS = (
    "Musterfrau",
    "Annegret-Erika",
    "MRN-471108",
    "ACC-0815-77",
    "19610203",
    "20240506",
    "St. Elsewhere",
    "1.2.826.0.1.3680043.8.498.4711",
    "ward-seven",
    "pneumothorax rule-out",
)
NAME, FIRST, MRN, ACCESSION, BORN, DATE, HOSPITAL, UID, WARD, NOTE = WORDS
KEY = HashKey(b"the key of the laboratory, 32 bytes or more")


def dicom_of_a_patient(pixels: np.ndarray, **values: object) -> bytes:
    dataset = picture(
        pixels,
        PatientName=f"{NAME}^{FIRST}",
        PatientID=MRN,
        AccessionNumber=ACCESSION,
        PatientBirthDate=BORN,
        StudyDate=DATE,
        InstitutionName=HOSPITAL,
        StudyInstanceUID=UID,
        StudyDescription=NOTE,
        **values,
    )
    return written(dataset)


def png_of_a_patient(image: Image.Image) -> bytes:
    notes = PngInfo()
    for word in WORDS:
        notes.add_text(word, f"{NAME} {MRN}", zip=True)
    return saved(image, "PNG", pnginfo=notes)


def jpeg_of_a_patient(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x0132] = f"{NAME}, {FIRST}; {NOTE}", HOSPITAL, f"{DATE} {BORN}"
    return saved(image, "JPEG", exif=exif, comment=f"{MRN} {ACCESSION} {UID}".encode())


def fill(folder: Path) -> None:
    """Write good, undecodable and unreadable files, with patient data in names, folders and headers."""
    where = folder / f"{WARD} {HOSPITAL}" / f"{NAME}_{FIRST}_{BORN}"
    where.mkdir(parents=True)
    gray, color = np.asarray(gray_scene()), scene()
    (where / f"{MRN}_{DATE}.dcm").write_bytes(dicom_of_a_patient(gray))
    (where / UID).write_bytes(dicom_of_a_patient(gray.T.copy()))
    (where / f"{ACCESSION}.png").write_bytes(png_of_a_patient(color))
    (where / f"{NAME}.jpg").write_bytes(jpeg_of_a_patient(color.transpose(Image.Transpose.ROTATE_90)))
    (where / f"{NAME} cut.dcm").write_bytes(dicom_of_a_patient(gray)[:-300])
    (where / f"{NAME} frames.dcm").write_bytes(dicom_of_a_patient(gray, NumberOfFrames=7))
    (where / f"{FIRST} cut.jpg").write_bytes(jpeg_of_a_patient(color)[:-400])
    (where / f"{MRN}.tif").write_text(f"{NAME} {FIRST} {MRN}")
    os.mkfifo(where / f"{NAME} pipe.png")
    (where / f"{MRN} gone.png").symlink_to(where / f"{NAME} nowhere.png")


@pytest.fixture(scope="module", params=["plain", "keyed"])
def private(request, run_extract, tmp_path_factory) -> tuple[Path, list[ImageSource]]:
    """A store of a folder with patient data, and its sources."""
    folder = tmp_path_factory.mktemp("hospital")
    fill(folder)
    manifest = import_folder(folder, ImportOptions(), Silent())
    sources = [
        ImageSource(path=manifest.path_of(name), image_hash=digest)
        for name, digest in manifest.images().select("image", "image_hash").iter_rows()
    ]
    out = tmp_path_factory.mktemp("stores") / f"{request.param}.zarr"
    key = KEY if request.param == "keyed" else None
    report = run_extract(sources, out, unreadable=manifest.unreadable, hash_key=key)
    assert (len(sources), len(report.failures), len(manifest.unreadable)) == (8, 4, 2)
    return out, sources


def test_the_scanned_store_is_complete(private):
    """The other tests would be trivial for a store without rows or reasons."""
    out, _ = private
    failures = pl.read_parquet(out / "failures.parquet")
    assert failures.height == 6
    assert failures["image_hash"].null_count() == 2
    assert "a pipe, not a regular file" in failures["reason"].to_list()
    assert pl.read_parquet(out / "index.parquet").height >= 4


def test_a_store_contains_no_patient_data(private):
    out, sources = private
    paths = {part for source in sources for part in source.path.parts[-4:]} | {source.path.stem for source in sources}
    assert find_words(out, {*WORDS, *paths, str(sources[0].path.parent)}) == []


def test_a_packed_store_contains_no_patient_data(private, tmp_path):
    out, _ = private
    pack(out, tmp_path / "packed.tar", allow="private", progress=Silent())
    assert find_words(tmp_path, WORDS) == []


def test_no_plain_hash_is_in_a_keyed_store(private):
    """With plain hashes, anyone who has an image can tell that it is in the store."""
    out, sources = private
    hashes = {source.image_hash for source in sources}
    for source in sources:
        try:
            hashes.add(decode_image(source.path.read_bytes()).pixel_hash)
        except UnreadableImage:
            continue
    found = find_words(out, hashes)
    if out.stem == "plain":
        assert len({line.split(": ")[1].split()[0] for line in found}) == len(hashes)
    else:
        assert found == []
        assert open_store(out, KEY).missing([sources[0].image_hash]) == []


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy.zarr"))


def in_parquet_column(store: Path, word: str) -> None:
    frame = pl.read_parquet(store / "failures.parquet")
    frame.with_columns(reason=pl.lit(f"about {word}")).write_parquet(store / "failures.parquet", compression="zstd")


def in_parquet_metadata(store: Path, word: str) -> None:
    frame = pl.read_parquet(store / "index.parquet")
    frame.write_parquet(store / "index.parquet", metadata={"note": json.dumps({"of": word[:3] + "\u00e9" + word})})


def in_parquet_bytes(store: Path, word: str) -> None:
    frame = pl.DataFrame({"x": [b"\xff\x00" + word.encode("utf-16-le")] * 9})
    frame.write_parquet(store / "more.parquet", compression="zstd")


def in_array(store: Path, word: str) -> None:
    text = np.frombuffer(word.encode().ljust(96, b"\0"), np.uint8)
    array = zarr.create_array(
        store / "extra", shape=(96,), chunks=(96,), dtype="u1", compressors=zarr.codecs.ZstdCodec()
    )
    array[:] = text


def in_json(store: Path, word: str) -> None:
    (store / "ledger" / "more.json").write_text(
        '{"a": [{"b": "' + "".join(f"\\u{ord(letter):04x}" for letter in word) + '"}]}'
    )


def in_archive(store: Path, word: str) -> None:
    (store / "more.gz").write_bytes(gzip.compress(json.dumps({"k": word.upper()}).encode()))


def in_file_name(store: Path, word: str) -> None:
    (store / f"{word}.json").write_text("{}")


def in_base64(store: Path, word: str) -> None:
    (store / "more.txt").write_bytes(b"x" + base64.b64encode(b"ab" + f"to {word} of".encode()))


def in_hex(store: Path, word: str) -> None:
    (store / "more.txt").write_text(word.encode().hex())


def as_digest(store: Path, word: str) -> None:
    (store / "more.txt").write_bytes(b"id=" + hashlib.sha256(word.encode()).digest())


PLANTS = (
    in_parquet_column,
    in_parquet_metadata,
    in_parquet_bytes,
    in_array,
    in_json,
    in_archive,
    in_file_name,
    in_base64,
    in_hex,
    as_digest,
)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("word", [NAME, HOSPITAL])
def test_the_scanner_finds_a_planted_word(copied, plant, word):
    plant(copied, word)
    found = find_words(copied, WORDS)
    assert found
    assert all(word in line for line in found)


def test_reasons_match_the_files(private):
    reasons = pl.read_parquet(private[0] / "failures.parquet")["reason"].to_list()
    assert sorted(reasons) == [
        "DICOM with 7 frames: export the frame you mean as a DICOM file of its own",
        "a link to a file that does not exist",
        "a pipe, not a regular file",
        "not an image in a known format (36 bytes)",
        "truncated or damaged image data: get the file again from its source",
        "truncated: 1236 of 1536 bytes of DICOM pixel data",
    ]

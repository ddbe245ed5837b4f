"""Every odd or malicious file has the outcome in docs/images.md, in bounded time, and reveals no patient data."""

import errno
import os
import re
import threading
from pathlib import Path

import numpy as np
import odd_dicoms
import odd_rasters
import pytest
from medalign.teacher_cache.images import (
    MAX_BYTES,
    UnreadableImage,
    decode_image,
    image_hash,
    read_head,
    read_image,
    read_image_bytes,
)
from odd_files import ODD_FILES
from odd_rasters import Odd, gray16, gray_scene, saved, scene, tiff
from PIL import Image
from pixel_hashes import HASHES

DOCS = Path(__file__).parents[3] / "docs" / "images.md"
SECONDS = 30
"""Maximum seconds for one file on a busy machine; the tests look for hangs."""


def within(seconds: float, work):
    """Run `work()` in a daemon thread, which cannot keep the test run alive."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, f"not done within {seconds} s"
    return results[0]


def outcome(path: Path) -> str | Image.Image:
    try:
        return read_image(path).rgb
    except UnreadableImage as error:
        return error.reason


@pytest.mark.parametrize("odd", ODD_FILES, ids=lambda odd: odd.what)
def test_each_file_has_the_documented_outcome(odd: Odd, tmp_path, capfd):
    path = tmp_path / odd.name
    odd.make(path)
    found = within(SECONDS, lambda: outcome(path))
    assert (f"{found.width} x {found.height}" if isinstance(found, Image.Image) else found) == odd.outcome
    if odd.close is not None:
        wanted = np.asarray((gray_scene() if odd.gray else scene()).convert("RGB")).astype(int)
        assert abs(np.asarray(found).astype(int) - wanted).mean() <= odd.close
    assert capfd.readouterr() == ("", ""), "decoders print nothing"


@pytest.mark.parametrize("odd", [odd for odd in ODD_FILES if not odd.outcome[0].isdigit()], ids=lambda odd: odd.what)
def test_no_reason_contains_patient_data_or_a_path(odd: Odd, tmp_path):
    assert "\n" not in odd.outcome
    assert "/" not in odd.outcome.replace("MPEG-4 AVC/H.264", "").replace("Level 4.1", "").replace(" / ", "")
    assert not any(value in odd.outcome for value in odd_dicoms.PATIENT.values())


@pytest.mark.parametrize("what", HASHES)
def test_pixels_of_ordinary_files_have_not_changed(what, tmp_path):
    odd = next(odd for odd in ODD_FILES if odd.what == what)
    odd.make(tmp_path / "file")
    assert decode_image((tmp_path / "file").read_bytes()).pixel_hash[:32] == HASHES[what]


def test_the_documented_table_matches_the_tests():
    assert len(ODD_FILES) >= 60
    assert len({odd.what for odd in ODD_FILES}) == len(ODD_FILES)
    documented = re.search(r"<!-- odd files -->\n(.*?)<!-- end -->", DOCS.read_text(), re.DOTALL)
    assert documented is not None
    assert documented[1] == table()


def table() -> str:
    """The text in docs/images.md between its two marks."""
    lines = ["| file | outcome |", "| --- | --- |"]
    for odd in ODD_FILES:
        size = re.fullmatch(r"\d+ x \d+", odd.outcome)
        lines.append(f"| {odd.what} | {'read' if size else 'refused: ' + odd.outcome} |")
    return "\n" + "\n".join(lines) + "\n\n"


def refuse_opening(path: Path, monkeypatch) -> None:
    """Remove the permission to read; for root, which may read anything, the error is simulated."""
    path.chmod(0)
    if os.geteuid() == 0:
        real = os.open

        def refuse(name, *rest):
            if Path(name) == path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
            return real(name, *rest)

        monkeypatch.setattr(os, "open", refuse)


def test_a_file_without_read_permission(tmp_path, monkeypatch):
    path = tmp_path / "patient.png"
    path.write_bytes(saved(scene(), "PNG"))
    refuse_opening(path, monkeypatch)
    assert outcome(path) == "cannot be read: Permission denied"
    assert read_head(path, 132) == b""


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_an_impossible_file_name(tmp_path, name):
    assert str(outcome(tmp_path / name)).startswith("cannot be read")


def test_a_regular_file_that_becomes_a_pipe_between_looking_and_opening(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    real = os.open

    def swap(name, *rest):
        path.unlink()
        os.mkfifo(path)
        return real(name, *rest)

    monkeypatch.setattr(os, "open", swap)
    assert within(SECONDS, lambda: outcome(path)) == "a pipe, not a regular file"


def test_a_file_just_within_the_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("medalign.teacher_cache.images.safe_read.MAX_BYTES", 1000)
    (tmp_path / "a").write_bytes(bytes(1000))
    (tmp_path / "b").write_bytes(bytes(1001))
    assert len(read_image_bytes(tmp_path / "a")) == 1000
    with pytest.raises(UnreadableImage, match="1,001 bytes, more than the 1,000 bytes"):
        read_image_bytes(tmp_path / "b")
    assert MAX_BYTES >= 80_000_000 * 3 * 2
    assert read_head(tmp_path / "b", 5) == bytes(5)


def test_the_pixel_hash_does_not_depend_on_the_encoding():
    color = [
        saved(scene(), "PNG"),
        saved(scene(), "PNG", compress_level=0),
        saved(scene(), "BMP"),
        saved(scene(), "PPM"),
        saved(scene(), "WEBP", lossless=True),
        saved(scene().convert("RGBA"), "PNG"),
        tiff("tiff_lzw", scene()),
        odd_rasters.turned("PNG", 6),
        odd_rasters.turned("TIFF", 8),
    ]
    gray = [saved(gray_scene(), "PNG"), saved(gray_scene().convert("LA"), "PNG"), tiff("", gray_scene())]
    deep = [saved(gray16(), "PNG"), tiff("", gray16()), tiff("", gray16(), big_endian=True), saved(gray16(), "PPM")]
    hashes = [{decode_image(data).pixel_hash for data in group} for group in (color, gray, deep)]
    assert [len(group) for group in hashes] == [1, 1, 1]
    assert len(set.union(*hashes)) == 3, "depth and color are part of the identity"
    assert len({image_hash(data) for data in color}) == len(color)


def test_sixteen_bits_are_scaled_exactly():
    every = Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    levels = np.asarray(decode_image(saved(every, "PNG")).rgb)[..., 0].ravel()
    assert levels.tolist() == [value // 257 for value in range(65536)]


def test_unknown_ranges_are_stretched_over_finite_values():
    values = np.array([[-3.0, np.nan, 1.0], [5.0, np.inf, -np.inf]], np.float32)
    levels = np.asarray(decode_image(tiff("", Image.fromarray(values))).rgb)[..., 0]
    assert levels.tolist() == [[0, 0, round(255 / 2)], [255, 255, 0]]
    flat = np.asarray(decode_image(tiff("", Image.fromarray(np.full((2, 2), 7.0, np.float32)))).rgb)
    assert flat.max() == 0


def test_no_other_format_of_pillow_is_tried():
    """Among them is PostScript, for which Pillow starts Ghostscript."""
    picture = scene()
    for kind in ("EPS", "PDF", "PCX", "TGA", "ICO", "SGI", "DDS", "PALM", "MSP", "XBM", "IM"):
        try:
            data = saved(picture.convert("1") if kind in ("MSP", "XBM") else picture, kind)
        except (OSError, ValueError, KeyError):  # this Pillow cannot write it
            continue
        with pytest.raises(UnreadableImage, match="not an image"):
            decode_image(data)


@pytest.mark.parametrize("odd", [*odd_rasters.READ, *odd_dicoms.READ], ids=lambda odd: odd.what)
def test_flipped_bytes_and_truncated_files_are_read_or_rejected_cleanly(odd: Odd, tmp_path):
    random = np.random.default_rng(len(odd.what))
    odd.make(tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    for _ in range(5):
        mutated = bytearray(data)
        for position in random.integers(0, len(data), random.integers(1, 8)):
            mutated[position] = random.integers(0, 256)
        if random.random() < 0.3:
            del mutated[random.integers(1, len(mutated)) :]
        (tmp_path / "file").write_bytes(mutated)
        found = within(SECONDS, lambda: outcome(tmp_path / "file"))
        if isinstance(found, str):
            assert not any(word in found for word in ("\n", str(tmp_path), *odd_dicoms.PATIENT.values()))

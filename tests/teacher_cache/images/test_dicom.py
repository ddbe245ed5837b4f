"""DICOM is rendered like pydicom does; codecs and headers change no pixel; nothing is imported early."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom.pixels.decoders.base as decoders
import pytest
from dicoms import SYNTAXES, compressed, lossless_jpeg, picture, written
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from medalign.teacher_cache.images import UnreadableImage, decode_image, image_hash, looks_like_dicom
from odd_dicoms import GRAY12, PATIENT, table, without_meta
from odd_rasters import saved
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import JPEGLosslessSV1

READABLE = sorted(SYNTAXES)


def shown(dataset) -> np.ndarray:
    """Gray levels decoded from the file."""
    rgb = np.asarray(decode_image(written(dataset)).rgb)
    assert (rgb[..., 0] == rgb[..., 1]).all()
    assert (rgb[..., 0] == rgb[..., 2]).all()
    return rgb[..., 0].astype(int)


def agrees(dataset, stored: np.ndarray, expected: np.ndarray) -> None:
    """The file gives the expected levels, or is rejected if varying values become one gray level."""
    refused = None
    try:
        levels = shown(dataset)
    except UnreadableImage as error:
        refused = error.reason
    if refused is None:
        assert abs(levels - expected).max() <= 0.5001
        assert np.ptp(levels) > 0 or np.ptp(stored.astype(int)) == 0
    else:
        assert "one color" in refused
        assert np.ptp(np.round(expected - 1e-4)) == 0 or np.ptp(np.round(expected + 1e-4)) == 0
        assert np.ptp(stored.astype(int)) > 0


def by_pydicom(dataset, stored: np.ndarray) -> np.ndarray:
    """Pydicom's modality LUT and window, brought to 0..255 between what it makes of the darkest and brightest value."""
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        units = apply_modality_lut(stored, dataset)
        windowed = apply_windowing(units, dataset)
        dark, bright = (float(apply_windowing(np.array([end]), dataset)[0]) for end in (-1e15, 1e15))
    brightness = (windowed - dark) / (bright - dark)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        brightness = 1 - brightness
    return 255 * brightness


@st.composite
def stored_values(draw):
    """Pixels of any depth and sign, over their full range."""
    bits = draw(st.integers(2, 16))
    signed = draw(st.booleans())
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    return random.integers(low, high + 1, (9, 14)).astype(kind), bits


@settings(max_examples=120, deadline=None)
@given(
    drawn=stored_values(),
    slope=st.sampled_from([None, 1, 0.5, 2.25, -1, -3.5, 1e-3]),
    intercept=st.sampled_from([0, -1024, 17.5]),
    center=st.floats(-1.2, 1.2),
    width=st.floats(0.001, 2.5),
    function=st.sampled_from([None, "LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    several=st.booleans(),
)
def test_windows_match_pydicom(drawn, slope, intercept, center, width, function, photometric, several):
    stored, bits = drawn
    scale = (1 << bits) * abs(slope or 1)
    middle, width = round(center * scale + (intercept if slope else 0), 4), round(width * scale, 4)
    assume(width >= 1 if function in (None, "LINEAR") else width > 0)
    dataset = picture(stored, BitsStored=bits, PhotometricInterpretation=photometric)
    dataset.WindowCenter = [middle, 0] if several else middle
    dataset.WindowWidth = [width, 1] if several else width
    if slope is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    if function is not None:
        dataset.VOILUTFunction = function
    agrees(dataset, stored, by_pydicom(dataset, stored))


@settings(max_examples=40, deadline=None)
@given(
    drawn=stored_values(),
    entries=st.integers(2, 300),
    first=st.integers(0, 200),
    bits=st.sampled_from([8, 10, 12, 16]),
    rescale=st.sampled_from([None, (1, 0), (2, -50)]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
def test_voi_tables_match_pydicom(drawn, entries, first, bits, rescale, photometric):
    stored, depth = drawn
    values = np.random.default_rng(entries).integers(0, 1 << bits, entries)
    values[0] = (1 << bits) - 1
    dataset = picture(stored, BitsStored=depth, PhotometricInterpretation=photometric)
    dataset.VOILUTSequence = [table(values, first, bits)]
    dataset.WindowCenter, dataset.WindowWidth = 3, 7  # the table comes first, as in pydicom
    if rescale is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = rescale
    output = np.rint(apply_modality_lut(stored, dataset)).astype(np.int64)
    units = np.clip(output, first, first + entries - 1)
    brightness = apply_voi(units, dataset) / (2**bits - 1)
    if photometric == "MONOCHROME1":
        brightness = 1 - brightness
    agrees(dataset, stored, 255 * brightness)


@settings(max_examples=50, deadline=None)
@given(
    drawn=stored_values(),
    slope=st.sampled_from([1, 2.5, -1]),
    padding=st.one_of(st.none(), st.tuples(st.integers(-40, 40), st.integers(-40, 40))),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
def test_without_a_window_the_range_of_values_excludes_padding(drawn, slope, padding, photometric):
    stored, bits = drawn
    dataset = picture(stored, BitsStored=bits, PhotometricInterpretation=photometric)
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, 3
    tissue = np.ones(stored.shape, bool)
    if padding is not None:
        if stored.dtype.kind == "u":
            padding = (abs(padding[0]), abs(padding[1]))
        dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = padding
        tissue = (stored < min(padding)) | (stored > max(padding))
    units = stored * float(slope) + 3
    levels = np.zeros(stored.shape)
    if tissue.any() and np.ptp(units[tissue]) > 0:
        levels = (units - units[tissue].min()) / np.ptp(units[tissue])
    if photometric == "MONOCHROME1":
        levels = 1 - levels
    agrees(dataset, stored, np.where(tissue, 255 * levels, 0))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_lossless_codecs_change_no_pixel(bits, signed):
    random = np.random.default_rng(bits)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    smooth = np.linspace(low, high, 40 * 50).reshape(40, 50) + random.normal(0, 3, (40, 50))
    stored = np.clip(smooth, low, high).astype(("i" if signed else "u") + ("1" if bits == 8 else "2"))
    hashes = {
        syntax: decode_image(written(picture(stored, BitsStored=bits, **PATIENT), syntax)).pixel_hash
        for syntax in READABLE
    }
    if not signed:
        stream = lossless_jpeg(stored.astype(np.uint16), bits)
        jpeg = compressed(picture(stored, BitsStored=bits), stream, JPEGLosslessSV1)
        hashes["JPEG lossless"] = decode_image(jpeg).pixel_hash
    assert len(set(hashes.values())) == 1, hashes


def test_eight_encodings_of_one_mri_give_one_picture():
    names = ["", "_RLE", "_bigendian", "_expb", "_implicit", "_jp2klossless", "_jpeg_ls_lossless", "_padded"]
    contents = [Path(get_testdata_file(f"MR_small{name}.dcm", download=False)).read_bytes() for name in names]
    assert len({decode_image(data).pixel_hash for data in contents}) == 1
    assert len({image_hash(data) for data in contents}) == len(names)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_both_decoders_of_jpeg_2000_agree(bits, signed, monkeypatch):
    """Pillow is tried first; another order, or a missing plugin, must not change stores."""
    stored = np.random.default_rng(3).integers(0, 1 << bits, (40, 48)).astype("u1" if bits == 8 else "u2")
    if signed:
        stored = (stored.astype(int) - (1 << bits - 1)).astype("i1" if bits == 8 else "i2")
    data = written(picture(stored, BitsStored=bits), "JPEG 2000")
    hashes = []
    for plugin in ("pillow", "pylibjpeg"):
        monkeypatch.setattr("medalign.teacher_cache.images.dicom.frame._PLUGINS", (plugin,))
        hashes.append(decode_image(data).pixel_hash)
    assert hashes[0] == hashes[1]


def test_a_changed_header_changes_only_the_file_hash():
    plain, named = (written(picture(GRAY12, **values)) for values in ({}, PATIENT))
    assert image_hash(plain) != image_hash(named)
    assert decode_image(plain).pixel_hash == decode_image(named).pixel_hash


def test_an_exported_picture_is_found_by_its_pixels():
    decoded = decode_image(written(picture(GRAY12, WindowCenter=2000, WindowWidth=3000)))
    exported = saved(decoded.rgb.convert("L"), "PNG")
    assert decode_image(exported).pixel_hash == decoded.pixel_hash


@pytest.mark.parametrize("syntax", [name for name in READABLE if SYNTAXES[name].is_encapsulated])
def test_a_missing_decoder_is_named_with_what_installs_it(syntax, monkeypatch):
    data = written(picture(GRAY12), syntax)
    monkeypatch.setattr(decoders.Decoder, "available_plugins", property(lambda self: ()))
    with pytest.raises(UnreadableImage) as caught:
        decode_image(data)
    assert caught.value.reason == (
        f"DICOM compressed as {SYNTAXES[syntax].name}, which no installed decoder reads: pip install 'medalign[dicom]'"
    )


def test_dicom_is_recognized_by_its_first_bytes():
    data = written(picture(GRAY12))
    assert looks_like_dicom(data[:132])
    for syntax in ("implicit", "explicit"):
        assert looks_like_dicom(without_meta(written(picture(GRAY12), syntax)))
    others = [saved(Image.new("L", (9, 9)), kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")]
    assert not any(looks_like_dicom(other) for other in (*others, b"", b"DICM", bytes(500), b"\x08\0"))


@given(noise=st.binary(max_size=400), behind=st.sampled_from([b"", bytes(128) + b"DICM", b"\x08\0\x05\0CS\x0a\0"]))
@settings(max_examples=120, deadline=None)
def test_noise_is_rejected_cleanly(noise, behind):
    with pytest.raises(UnreadableImage):
        decode_image(behind + noise)


def test_pydicom_is_loaded_only_for_dicom():
    probe = (
        "import io, sys\nfrom PIL import Image\nfrom medalign.teacher_cache.images import decode_image\n"
        "file = io.BytesIO()\nImage.new('L', (9, 9)).save(file, 'PNG')\ndecode_image(file.getvalue())\n"
        "print('pydicom' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

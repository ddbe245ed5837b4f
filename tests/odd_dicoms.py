"""Ordinary, odd and hostile DICOM files, and what must come of each."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dicoms import compressed, header, lossless_jpeg, padded, picture, written
from odd_rasters import Odd, content, deflated_zeros, gray_scene, saved, scene
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import convert_color_space
from pydicom.uid import (
    JPEG2000,
    MPEG4HP41,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

PATIENT = {
    "PatientName": "DOE^JANE",
    "PatientID": "MRN-4711",
    "PatientBirthDate": "19610203",
    "AccessionNumber": "ACC-0815",
    "StudyDate": "20240506",
    "InstitutionName": "St. Elsewhere",
}
"""What no reason and no store may repeat."""

GRAY = np.asarray(gray_scene())
COLOR = np.asarray(scene())
GRAY12 = GRAY.astype(np.uint16) * 16
BASIC_TEXT_SR = UID("1.2.840.10008.5.1.4.1.1.88.11")
ENCAPSULATED_PDF = UID("1.2.840.10008.5.1.4.1.1.104.1")
PARAMETRIC_MAP = UID("1.2.840.10008.5.1.4.1.1.30")


def file(build: Callable[[], Dataset], syntax: str = "explicit") -> Callable[[Path], None]:
    """A file of this data set with a patient's header."""

    def data() -> bytes:
        dataset = build()
        for name, value in PATIENT.items():
            setattr(dataset, name, value)
        return written(dataset, syntax)

    return content(data)


def gray(**values: Any) -> Callable[[], Dataset]:
    return lambda: picture(GRAY, **values)


def window(center: Any, width: Any, **values: Any) -> dict[str, Any]:
    return {"WindowCenter": center, "WindowWidth": width, **values}


def table(values: np.ndarray, first: int, bits: int) -> Dataset:
    """An item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values) % 65536, first, bits])
    item.add_new("LUTData", "US", values.tolist())
    return item


def hounsfield() -> Dataset:
    """CT: stored 0 to 4080 is -1024 to 3056 HU; the window shows all of it."""
    return picture(GRAY12, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024, **window(1016.5, 4081))


def planes() -> Dataset:
    dataset = picture(COLOR, PlanarConfiguration=1)
    dataset.PixelData = padded(COLOR.transpose(2, 0, 1).tobytes())
    return dataset


def ybr_422() -> Dataset:
    """Two pixels share their color, as ultrasound machines write."""
    ybr = convert_color_space(COLOR, "RGB", "YBR_FULL")
    pairs = ybr.reshape(-1, 2, 3)
    stored = np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=1)
    dataset = picture(COLOR, PhotometricInterpretation="YBR_FULL_422")
    dataset.PixelData = stored.astype(np.uint8).tobytes()
    return dataset


def palette(bits: int = 16) -> Dataset:
    indexed = scene().quantize(256)
    dataset = picture(np.asarray(indexed), PhotometricInterpretation="PALETTE COLOR")
    colors = np.asarray(indexed.getpalette(), np.uint16).reshape(-1, 3)
    for number, name in enumerate(("Red", "Green", "Blue")):
        entries = colors[:, number] * (257 if bits == 16 else 1)
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [len(entries), 0, bits])
        setattr(dataset, f"{name}PaletteColorLookupTableData", entries.astype("<u2").tobytes())
    return dataset


def low_byte_palette() -> Dataset:
    dataset = palette(8)
    for name in ("Red", "Green", "Blue"):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
    return dataset


def segmented_palette() -> Dataset:
    dataset = palette()
    dataset.SegmentedRedPaletteColorLookupTableData = b"\1\0\0\1\xff\xff"
    return dataset


def enhanced() -> Dataset:
    """One frame of an enhanced object: rescale and window lie in its functional groups."""
    rescale, shown, group = Dataset(), Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 2, -100, "US"
    shown.WindowCenter, shown.WindowWidth = 155.5, 511
    group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [rescale], [shown]
    return picture(GRAY, NumberOfFrames=1, SharedFunctionalGroupsSequence=[group])


def one_bit() -> Dataset:
    bits = GRAY > 127
    dataset = picture(GRAY, BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset.PixelData = padded(np.packbits(bits, bitorder="little").tobytes())
    return dataset


def jpeg(**values: Any) -> bytes:
    dataset = picture(COLOR, PhotometricInterpretation="YBR_FULL_422", **PATIENT, **values)
    return compressed(dataset, saved(scene(), "JPEG", quality=95), JPEGBaseline8Bit)


def coded(stream: bytes, syntax: UID, pixels: np.ndarray = GRAY12, **values: Any) -> bytes:
    return compressed(picture(pixels, **PATIENT, **values), stream, syntax)


def padded_border() -> Dataset:
    """A black border of -2000 around tissue: without padding it would take half of all grays."""
    values = GRAY.astype(np.int16) + 100
    values[:, :5] = -2000
    return picture(values, PixelPaddingValue=-2000)


def without_meta(data: bytes) -> bytes:
    """As scanners sent it before 1993: no preamble, no first part."""
    length = struct.unpack("<I", data[140:144])[0]
    return data[144 + length :]


def deflate_bomb() -> bytes:
    data = written(gray(**PATIENT)(), "deflated")
    start = 144 + struct.unpack("<I", data[140:144])[0]
    return data[:start] + deflated_zeros(600)


def swollen_fragments() -> Dataset:
    dataset = picture(GRAY)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" * 200_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def video() -> bytes:
    dataset = picture(COLOR, **PATIENT)
    return compressed(dataset, b"\0\0\0\1" * 50, MPEG4HP41)


def many_elements() -> bytes:
    data = written(gray()())
    return data + b"".join(
        struct.pack("<HH2sHH", 0x7FE3 + 2 * (index >> 15), index & 0x7FFF, b"SH", 2, 0x2020) for index in range(30_000)
    )


def shipped(name: str) -> Callable[[Path], None]:
    """A file that pydicom's own tests use and its package carries."""
    return lambda path: path.write_bytes(Path(get_testdata_file(name, download=False)).read_bytes()) and None


def rle_bomb() -> bytes:
    """A frame of 4 MB of run lengths for 1,536 pixels."""
    dataset = picture(GRAY, **PATIENT)
    stream = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 2_000_000
    return compressed(dataset, stream, RLELossless)


def lying(stream: bytes) -> bytes:
    return coded(stream, JPEG2000Lossless, GRAY)


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    assert len(old) == len(new)
    return data.replace(old, new)


def report(kind: UID) -> Dataset:
    dataset = header(kind, Modality="SR")
    if kind == ENCAPSULATED_PDF:
        dataset.EncapsulatedDocument = b"%PDF-1.4 DOE^JANE "
    return dataset


def without(dataset: Dataset, keyword: str) -> Dataset:
    delattr(dataset, keyword)
    return dataset


def floats() -> Dataset:
    dataset = header(PARAMETRIC_MAP, Rows=2, Columns=2, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2")
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = np.arange(4, dtype="<f4").tobytes()
    return dataset


SIZES = "DICOM whose pixel data are not of the size that its header says"

READ = [
    Odd("DICOM, 8-bit gray without a window", file(gray()), close=1, gray=True),
    Odd("DICOM without a suffix", file(gray()), close=1, gray=True, name="IM000001"),
    Odd("DICOM, implicit VR", file(gray(), "implicit"), close=1, gray=True),
    Odd("DICOM, big endian, 16 bit", file(lambda: picture(GRAY12), "big endian"), close=1, gray=True),
    Odd("DICOM, deflated", file(gray(), "deflated"), close=1, gray=True),
    Odd(
        "DICOM without preamble and first part",
        content(lambda: without_meta(written(gray()(), "implicit"))),
        close=1,
        gray=True,
    ),
    Odd("DICOM, window", file(gray(**window(127.5, 256))), close=1, gray=True),
    Odd("DICOM, two windows: the first counts", file(gray(**window([127.5, 5], [256, 2]))), close=1, gray=True),
    Odd(
        "DICOM, window LINEAR_EXACT",
        file(gray(**window(127.5, 255, VOILUTFunction="LINEAR_EXACT"))),
        close=1,
        gray=True,
    ),
    Odd("DICOM, window SIGMOID", file(gray(**window(127.5, 255, VOILUTFunction="SIGMOID")))),
    Odd("DICOM, window of width 0: as if there were none", file(gray(**window(7, 0))), close=1, gray=True),
    Odd("DICOM, CT with rescale to Hounsfield units", file(hounsfield), close=1, gray=True),
    Odd(
        "DICOM, MONOCHROME1",
        file(lambda: picture(255 - GRAY, PhotometricInterpretation="MONOCHROME1")),
        close=1,
        gray=True,
    ),
    Odd("DICOM, signed pixels", file(lambda: picture(GRAY12.astype(np.int16) - 2000)), close=1, gray=True),
    Odd("DICOM, signed 32-bit pixels", file(lambda: picture(GRAY.astype(np.int32) * 70000 - 9)), close=1, gray=True),
    Odd("DICOM, padding around the tissue", file(padded_border)),
    Odd("DICOM of padding alone", file(lambda: picture(np.full_like(GRAY, 9), PixelPaddingValue=9))),
    Odd("DICOM, modality LUT", file(gray(ModalityLUTSequence=[table(np.arange(256) * 3, 0, 16)])), close=1, gray=True),
    Odd("DICOM, VOI LUT", file(gray(VOILUTSequence=[table(np.arange(256) * 257, 0, 16)])), close=1, gray=True),
    Odd("DICOM, palette", file(palette), close=10),
    Odd("DICOM, RGB by pixel", file(lambda: picture(COLOR)), close=0),
    Odd("DICOM, RGB by plane", file(planes), close=0),
    Odd("DICOM, RGB of 16 bits", file(lambda: picture(COLOR.astype(np.uint16) * 257)), close=0),
    Odd(
        "DICOM, YBR_FULL",
        file(lambda: picture(convert_color_space(COLOR, "RGB", "YBR_FULL"), PhotometricInterpretation="YBR_FULL")),
        close=2,
    ),
    Odd("DICOM, YBR_FULL_422", file(ybr_422), close=5),
    Odd("DICOM, 1 bit", file(one_bit)),
    Odd("DICOM, enhanced, one frame", file(enhanced), close=1, gray=True),
    Odd("DICOM, RLE", file(lambda: picture(GRAY12, BitsStored=12), "RLE"), close=1, gray=True),
    Odd("DICOM, RLE, RGB", file(lambda: picture(COLOR), "RLE"), close=0),
    Odd("DICOM, JPEG", content(jpeg), close=5),
    Odd(
        "DICOM, JPEG lossless, 12 bit",
        content(lambda: coded(lossless_jpeg(GRAY12, 12), JPEGLosslessSV1, BitsStored=12)),
        close=1,
        gray=True,
    ),
    Odd("DICOM, JPEG extended, 12 bit", shipped("JPGExtended.dcm"), "256 x 1024"),
    Odd("DICOM, JPEG-LS", shipped("MR_small_jpeg_ls_lossless.dcm"), "64 x 64"),
    Odd("DICOM, JPEG-LS near lossless", shipped("JPEGLSNearLossless_16.dcm"), "10 x 50"),
    Odd("DICOM, JPEG 2000, 12 bit", file(lambda: picture(GRAY12, BitsStored=12), "JPEG 2000"), close=1, gray=True),
    Odd("DICOM, JPEG 2000, lossy, RGB", content(lambda: coded(_lossy_j2k(), JPEG2000, COLOR)), close=4),
    Odd("DICOM, padding behind the code stream", content(lambda: jpeg_padded()), close=5),
    Odd("DICOM, CT by GDCM with a wrong sign in the header", shipped("J2K_pixelrep_mismatch.dcm"), "512 x 512"),
    Odd("DICOM with an overlay, which is left out", shipped("examples_overlay.dcm"), "484 x 300"),
    Odd("DICOM, palette of 8 bits in words of 16", file(lambda: low_byte_palette()), close=10),
    Odd("DICOM, rescale slope 0: as if it were 1", file(gray(RescaleSlope=0, RescaleIntercept=0)), close=1, gray=True),
    Odd(
        "DICOM, an overlay in the words of the pixels",
        file(lambda: picture(GRAY12 | (GRAY.astype(np.uint16) & 1) << 12, BitsStored=12, HighBit=11)),
        close=1,
        gray=True,
    ),
    Odd(
        "DICOM, High Bit 15 of 12 bits",
        file(lambda: picture(GRAY12 << 4, BitsStored=12, HighBit=15)),
        close=1,
        gray=True,
    ),
    Odd(
        "DICOM, VOI LUT of 12 bits called 16",
        file(lambda: picture(GRAY12, BitsStored=12, VOILUTSequence=[table(np.arange(4096), 0, 16)])),
        close=1,
        gray=True,
    ),
    Odd("DICOM named .jpg", file(gray()), close=1, gray=True, name="chest.jpg"),
]


def _lossy_j2k() -> bytes:
    return saved(scene(), "JPEG2000", no_jp2=True, irreversible=True, quality_mode="rates", quality_layers=[3])


def jpeg_padded() -> bytes:
    dataset = picture(COLOR, PhotometricInterpretation="YBR_FULL_422")
    return compressed(dataset, saved(scene(), "JPEG", quality=95) + b"\xff" * 9, JPEGBaseline8Bit)


REFUSED = [
    Odd(
        "DICOM of 12 frames",
        file(lambda: picture(GRAY, NumberOfFrames=12)),
        "DICOM with 12 frames: export the frame you mean as a DICOM file of its own",
    ),
    Odd(
        "DICOM, structured report",
        file(lambda: report(BASIC_TEXT_SR)),
        "DICOM without pixel data (Basic Text SR Storage)",
    ),
    Odd(
        "DICOM, encapsulated PDF",
        file(lambda: report(ENCAPSULATED_PDF)),
        "DICOM without pixel data (Encapsulated PDF Storage)",
    ),
    Odd(
        "DICOM of a private kind",
        file(lambda: header(UID("1.2.3.4"))),
        "DICOM without pixel data (of no standard kind)",
    ),
    Odd(
        "DICOMDIR",
        shipped("DICOMDIR"),
        "DICOM without pixel data (Media Storage Directory Storage)",
        name="DICOMDIR",
    ),
    Odd(
        "DICOM, parametric map",
        file(floats),
        "DICOM with floating-point pixels, a map of measurements: export it as a picture",
    ),
    Odd(
        "DICOM cut within its pixels",
        content(lambda: written(picture(GRAY, **PATIENT))[:-500]),
        "truncated: 1036 of 1536 bytes of DICOM pixel data",
    ),
    Odd(
        "DICOM cut before its pixels",
        content(lambda: written(picture(GRAY, **PATIENT))[:-1600]),
        "DICOM without the pixel data that its header describes (CT Image Storage): truncated",
    ),
    Odd(
        "DICOM, JPEG 2000, cut",
        content(lambda: written(picture(GRAY12, **PATIENT), "JPEG 2000")[:-400]),
        "DICOM that ends before its elements do: truncated",
    ),
    Odd(
        "DICOM, JPEG 2000, whose code stream is cut",
        content(lambda: coded(saved(gray_scene(), "JPEG2000", no_jp2=True)[:-200], JPEG2000Lossless, GRAY)),
        "truncated: the compressed DICOM pixel data have no end",
    ),
    Odd(
        "DICOM, RLE, whose runs are cut",
        content(lambda: coded(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 5, RLELossless, GRAY)),
        "DICOM compressed as RLE Lossless: no decoder could read its pixel data",
    ),
    Odd(
        "DICOM whose code stream is larger than its header says",
        content(lambda: lying(saved(scene().resize((2000, 2000)), "JPEG2000", no_jp2=True))),
        SIZES,
    ),
    Odd(
        "DICOM, JPEG with its end and no picture", content(lambda: lying(b"\xff\xd8" + bytes(80) + b"\xff\xd9")), SIZES
    ),
    Odd(
        "DICOM, JPEG 2000 of noise",
        content(lambda: coded(_noisy_j2k(), JPEG2000Lossless, GRAY)),
        "DICOM compressed as JPEG 2000 Image Compression (Lossless Only): no decoder could read its pixel data",
    ),
    Odd(
        "DICOM of 60,000 x 60,000 pixels in 3 kB",
        file(lambda: picture(GRAY, Rows=60000, Columns=60000)),
        "60000 x 60000 pixels, more than the 80000000 that one image may have: crop or resize it",
    ),
    Odd("DICOM with 0 rows", file(lambda: picture(GRAY, Rows=0)), "no pixels: 48 x 0"),
    Odd(
        "DICOM with 4 samples in a pixel",
        file(lambda: picture(GRAY, SamplesPerPixel=4)),
        "DICOM with 4 samples in a pixel: export it as RGB or gray",
    ),
    Odd(
        "DICOM without Bits Stored",
        file(lambda: without(picture(GRAY), "BitsStored")),
        "DICOM without Bits Stored (0028,0101), which says how its pixels are to be read: export it again from the "
        "archive, or as PNG",
    ),
    Odd(
        "DICOM whose window shows nothing of it",
        file(gray(**window(5000, 100))),
        "DICOM whose stored values vary from 0 to 255 and whose picture has one color: its window or look-up table "
        "excludes all of them, or all are padding; if the image shows anything, export it as PNG with a window that "
        "shows it",
    ),
    Odd("DICOM, segmented palette", file(segmented_palette), "DICOM with a segmented palette: export it as RGB"),
    Odd(
        "DICOM, HSV",
        file(lambda: picture(COLOR, PhotometricInterpretation="HSV")),
        "DICOM with a photometric interpretation that medalign does not support; export it as RGB",
    ),
    Odd(
        "DICOM, video",
        content(video),
        "DICOM in a transfer syntax that medalign does not support (MPEG-4 AVC/H.264 High Profile / Level 4.1); "
        "export it as PNG",
    ),
    Odd(
        "DICOM in a private transfer syntax",
        content(lambda: replaced(video(), MPEG4HP41.encode(), MPEG4HP41.replace("10008", "99999").encode())),
        "DICOM in a transfer syntax that medalign does not support (a private one); export it as PNG",
    ),
    Odd(
        "DICOM with a name where the number of frames belongs",
        content(
            lambda: replaced(
                written(picture(GRAY, NumberOfFrames=1)), b"\x28\0\x08\0IS\x02\x001 ", b"\x28\0\x08\0IS\x02\0JD"
            )
        ),
        "DICOM whose Number of Frames (0028,0008) is not a number: export it again from the archive, or as PNG",
    ),
    Odd("DICOM, deflated, of 600 MB", content(deflate_bomb), "deflated DICOM that becomes more than 512 MiB"),
    Odd("DICOM, RLE of far more runs than pixels", content(rle_bomb), "DICOM with more run lengths than pixels"),
    Odd("DICOM of 200,000 fragments", file(swollen_fragments), "DICOM with more than 100000 fragments of pixel data"),
    Odd("DICOM of 30,000 elements", content(many_elements), "DICOM with more than 20000 elements"),
    Odd(
        "DICM and nothing behind it", content(bytes(128) + b"DICM"), "DICOM that ends before its elements do: truncated"
    ),
    Odd(
        "DICM and noise",
        content(lambda: bytes(128) + b"DICM" + np.random.default_rng(1).bytes(4000)),
        "DICOM without pixel data (of no standard kind)",
    ),
    Odd(
        "a DICOM network message",
        content(lambda: written(gray()())[: 144 + _meta()] + bytes(60)),
        "a DICOM network message, not a DICOM file",
    ),
]


def _meta() -> int:
    return int(struct.unpack("<I", written(gray()())[140:144])[0])


def _noisy_j2k() -> bytes:
    stream = saved(gray_scene(), "JPEG2000", no_jp2=True)
    return stream[:60] + b"\x55" * (len(stream) - 62) + b"\xff\xd9"

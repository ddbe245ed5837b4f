"""DICOM files for tests, made by pydicom from arrays and header values."""

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.pixels import compress
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

CT_IMAGE = UID("1.2.840.10008.5.1.4.1.1.2")
SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG 2000": JPEG2000Lossless,
}


def header(kind: UID = CT_IMAGE, syntax: UID = ExplicitVRLittleEndian, **values: Any) -> Dataset:
    """A data set without pixels; values by keyword, as `PatientName="DOE^JANE"`."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["medalign"])
    dataset.SOPClassUID = kind
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def picture(pixels: NDArray[Any], **values: Any) -> Dataset:
    """An uncompressed image: [height, width] gray, or [height, width, 3] color by pixel."""
    allocated = 8 * pixels.dtype.itemsize
    stored = values.get("BitsStored", allocated)
    kind = {"PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB", "PlanarConfiguration": 0}
    described = {
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1 if pixels.ndim == 2 else pixels.shape[2],
        "BitsAllocated": allocated,
        "BitsStored": stored,
        "HighBit": stored - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        **(kind if pixels.ndim == 3 else {"PhotometricInterpretation": "MONOCHROME2"}),
    }
    dataset = header(**(described | values))
    dataset.PixelData = padded(pixels.tobytes())
    dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
    return dataset


def written(dataset: Dataset, syntax: str = "explicit") -> bytes:
    """The bytes of a file."""
    uid = SYNTAXES[syntax]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about files that are odd on purpose
        if uid.is_encapsulated:
            compress(dataset, uid, generate_instance_uid=False)
        elif dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian:
            if uid == ExplicitVRBigEndian and dataset.get("BitsAllocated") == 16:
                dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
            dataset.file_meta.TransferSyntaxUID = uid
        file = io.BytesIO()
        dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def compressed(dataset: Dataset, stream: bytes, syntax: UID) -> bytes:
    """The bytes of a file whose only frame is a ready code stream."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    return written(dataset)


def padded(data: bytes) -> bytes:
    """DICOM values have even lengths."""
    return data + b"\0" * (len(data) % 2)


def lossless_jpeg(pixels: NDArray[np.uint16], precision: int) -> bytes:
    """A lossless JPEG (process 14, predictor 1: the left neighbor), slowly, with one code length for all sizes."""
    height, width = pixels.shape
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (precision - 1)
    bits = []
    for difference in ((values - predicted + 32768) % 65536 - 32768).ravel().tolist():
        size = abs(difference).bit_length()
        bits.append(f"{size:05b}")
        if 0 < size < 16:
            bits.append(f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    lengths = bytes([0, 0, 0, 0, 17, *[0] * 11])

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content

    frame = bytes([precision]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([1, 1, 0x11, 0])
    return (
        b"\xff\xd8"
        + segment(0xC3, frame)
        + segment(0xC4, bytes([0]) + lengths + bytes(range(17)))
        + segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
        + scan
        + b"\xff\xd9"
    )

"""Image files of the kinds that `benchmarks/decode.py` times, drawn from seeded textures.

A texture is a smooth field, ribs and noise; the noise is set so that each kind has about the bytes per pixel of the
public data set that it stands for.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"


def texture(width: int, height: int, seed: int, noise: float) -> NDArray[np.float32]:
    """A radiograph-like field [height, width] in [0, 1]; `noise` is its standard deviation."""
    random = np.random.default_rng(seed)
    coarse = random.random((9, 7), dtype=np.float32)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ribs = np.sin(2 * np.pi * (14 * y / height + 1.5 * (2 * x / width - 1) ** 2))
    field = 0.15 + 0.6 * smooth + 0.08 * ribs + random.normal(0, noise, (height, width)).astype(np.float32)
    return np.clip(field, 0, 1)


def gray8(width: int, height: int, seed: int, noise: float) -> Image.Image:
    return Image.fromarray((255 * texture(width, height, seed, noise)).round().astype(np.uint8))


def color8(width: int, height: int, seed: int, noise: float) -> Image.Image:
    """Reddish, on black outside a disk, as a fundus photograph."""
    y, x = np.mgrid[0:height, 0:width]
    disk = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (0.48 * min(width, height)) ** 2
    field = texture(width, height, seed, noise) * disk
    return Image.fromarray((field[..., None] * (255, 140, 70)).round().astype(np.uint8))


def words(width: int, height: int, seed: int, bits: int, noise: float) -> NDArray[np.uint16]:
    return ((2**bits - 1) * texture(width, height, seed, noise)).round().astype(np.uint16)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def dicom(values: NDArray[np.uint16], bits: int, syntax: str, stream: bytes | None = None) -> bytes:
    """A DX file of `values` [height, width]; `stream` is the compressed frame."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["medalign"])
    meta.TransferSyntaxUID = UID(syntax)
    file = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Rows, file.Columns = values.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, bits, bits - 1, 0
    file.WindowCenter, file.WindowWidth = 2 ** (bits - 1), 2**bits
    file.PixelData = values.astype("<u2").tobytes() if stream is None else encapsulate([stream])
    file["PixelData"].VR = "OW" if stream is None else "OB"
    file["PixelData"].is_undefined_length = stream is not None
    out = BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _tiff(values: NDArray[np.uint16]) -> bytes:
    out = BytesIO()
    tifffile.imwrite(out, values, compression="deflate", predictor=True, photometric="minisblack")
    return out.getvalue()


def _lossless_dicom(seed: int) -> bytes:
    values = words(2048, 2500, seed, 12, 0.004)
    return dicom(values, 12, JPEG_LOSSLESS, imagecodecs.ljpeg_encode(values, bitspersample=12))


def _jpeg_2000_dicom(seed: int) -> bytes:
    values = words(2544, 3056, seed, 12, 0.004)
    stream = imagecodecs.jpeg2k_encode(values, codecformat="j2k", reversible=True, level=0, bitspersample=12)
    return dicom(values, 12, JPEG_2000_LOSSLESS, stream)


KINDS: dict[str, Callable[[int], bytes]] = {
    "MIMIC-CXR JPEG 2544x3056": lambda seed: encoded(gray8(2544, 3056, seed, 0.008), "JPEG", quality=95),
    "CheXpert JPEG 2320x2828": lambda seed: encoded(gray8(2320, 2828, seed, 0.012), "JPEG", quality=95),
    "CheXpert-small JPEG 390x320": lambda seed: encoded(gray8(390, 320, seed, 0.012), "JPEG", quality=90),
    "NIH PNG 1024x1024": lambda seed: encoded(gray8(1024, 1024, seed, 0.006), "PNG"),
    "VQA-RAD color JPEG 1024x768": lambda seed: encoded(
        gray8(1024, 768, seed, 0.012).convert("RGB"), "JPEG", quality=90
    ),
    "fundus color JPEG 2124x2056": lambda seed: encoded(color8(2124, 2056, seed, 0.01), "JPEG", quality=92),
    "TIFF deflate 16-bit 2048x2500": lambda seed: _tiff(words(2048, 2500, seed, 16, 0.002)),
    "DICOM DX 12-bit plain 2544x3056": lambda seed: dicom(
        words(2544, 3056, seed, 12, 0.004), 12, ExplicitVRLittleEndian
    ),
    "DICOM CR 16-bit plain 2048x2500": lambda seed: dicom(
        words(2048, 2500, seed, 16, 0.004), 16, ExplicitVRLittleEndian
    ),
    "DICOM JPEG lossless 2048x2500": _lossless_dicom,
    "DICOM JPEG 2000 DX 2544x3056": _jpeg_2000_dicom,
}
"""Makes the bytes of a file of each kind from a seed."""


def write_files(folder: Path, kinds: list[str], count: int) -> dict[str, list[Path]]:
    """`count` files of each of `kinds` in `folder`."""
    paths: dict[str, list[Path]] = {}
    for number, kind in enumerate(kinds):
        paths[kind] = [folder / f"{number}-{seed}" for seed in range(count)]
        for seed, path in enumerate(paths[kind]):
            path.write_bytes(KINDS[kind](seed))
    return paths

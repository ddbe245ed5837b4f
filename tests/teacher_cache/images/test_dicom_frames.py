"""DICOM files that hold several frames which Number of Frames (0028,0008) does not count: refused, as the counted ones.

What is one frame: Rows x Columns x Samples per Pixel words (PS3.5 8.1.1), a code stream, an RLE fragment (PS3.5 A.4).
"""

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from dicoms import padded, picture, written
from medalign.teacher_cache.images import UnreadableImage, decode_image
from odd_dicoms import GRAY, GRAY12
from odd_rasters import saved, scene
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_fragments, parse_basic_offsets
from pydicom.pixels import compress
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

COLOR = np.asarray(scene())
UNCOUNTED = [{}, {"NumberOfFrames": 1}, {"NumberOfFrames": 0}]


def reason(dataset: Dataset, syntax: str = "explicit") -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(written(dataset, syntax))
    return caught.value.reason


def coded(frames: list[bytes], syntax: str, pixels: np.ndarray, **options: object) -> Dataset:
    dataset = picture(pixels)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([padded(frame) for frame in frames], **options)
    dataset["PixelData"].VR = "OB"
    return dataset


def jpeg(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values), "JPEG", quality=90)


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian", "deflated"])
@pytest.mark.parametrize("header", UNCOUNTED)
@pytest.mark.parametrize("pixels", [GRAY, GRAY12.astype(np.uint16), COLOR, GRAY[:1, :3], GRAY[:3, :3]])
def test_additional_uncompressed_frames_are_rejected(pixels, header, syntax):
    dataset = picture(pixels, **header)
    dataset.PixelData = padded(b"".join([pixels.tobytes(), (pixels[::-1] ^ 1).tobytes(), pixels.tobytes()]))
    assert reason(dataset, syntax) == (
        "DICOM with 3 frames, of which its header counts 1: export the frame you mean as a DICOM file of its own"
    )


@pytest.mark.parametrize("behind", [b"\0\0", b"\0" * 5000, b"\1\2", b"\x77" * (GRAY.size - 2)])
def test_an_incomplete_frame_is_padding(behind):
    alone = decode_image(written(picture(GRAY)))
    dataset = picture(GRAY)
    dataset.PixelData = padded(GRAY.tobytes() + behind)
    assert decode_image(written(dataset)).pixel_hash == alone.pixel_hash


@pytest.mark.parametrize("header", UNCOUNTED)
def test_bits_and_halved_chroma_have_smaller_frames(header):
    """One bit for each sample, and two samples for each pixel (PS3.5 8.1.1, PS3.3 C.7.6.3.1.2)."""
    bits = np.packbits((GRAY > 127).ravel(), bitorder="little").tobytes()
    single = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    chroma = {"PhotometricInterpretation": "YBR_FULL_422"}
    for pixels, frame, values in ((GRAY, bits, single), (COLOR, COLOR[..., :2].tobytes(), chroma)):
        dataset = picture(pixels, **values, **header)
        dataset.PixelData = padded(frame)
        decode_image(written(dataset))
        dataset.PixelData = padded(frame * 2)
        assert "2 frames, of which its header counts 1" in reason(dataset)


STREAMS = {
    "JPEG": (JPEGBaseline8Bit, jpeg, GRAY),
    "JPEG 2000": (JPEG2000Lossless, lambda values: imagecodecs.jpeg2k_encode(values, codecformat="j2k", level=0), GRAY),
    "JPEG-LS": (JPEGLSLossless, imagecodecs.jpegls_encode, GRAY),
}


@pytest.mark.parametrize("header", UNCOUNTED)
@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("kind", STREAMS)
def test_additional_code_streams_are_rejected(kind, table, header):
    syntax, encode, pixels = STREAMS[kind]
    dataset = coded([encode(pixels), encode(255 - pixels)], syntax, pixels, has_bot=table)
    for name, value in header.items():
        setattr(dataset, name, value)
    assert "2 frames, of which its header counts 1: export the frame you mean" in reason(dataset)


def test_frames_listed_only_in_an_extended_offset_table_are_rejected():
    dataset = coded([jpeg(GRAY)], JPEGBaseline8Bit, GRAY)
    frames = [padded(jpeg(values)) for values in (GRAY, 255 - GRAY, GRAY)]
    dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    dataset["PixelData"].VR = "OB"
    assert "3 frames, of which its header counts 1" in reason(dataset)


def test_run_lengths_of_a_second_frame_are_rejected():
    dataset = picture(GRAY)
    compress(dataset, RLELossless, generate_instance_uid=False)
    single = decode_image(written(dataset)).pixel_hash
    assert single == decode_image(written(picture(GRAY))).pixel_hash
    file = BytesIO(dataset.PixelData)
    parse_basic_offsets(file)
    fragment = next(generate_fragments(file))
    dataset.PixelData = encapsulate([fragment, fragment], has_bot=False)
    dataset["PixelData"].VR = "OB"
    assert "2 frames, of which its header counts 1" in reason(dataset)


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("fragments", [2, 5])
def test_one_code_stream_in_several_fragments_is_one_frame(fragments, kind):
    syntax, encode, pixels = STREAMS[kind]
    whole = decode_image(written(coded([encode(pixels)], syntax, pixels))).pixel_hash
    for table in (True, False):
        split = coded([encode(pixels)], syntax, pixels, fragments_per_frame=fragments, has_bot=table)
        assert decode_image(written(split)).pixel_hash == whole

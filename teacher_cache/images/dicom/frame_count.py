"""Counting the frames in a DICOM file's pixel data, since Number of Frames in the header may be wrong."""

import struct
from io import BytesIO
from typing import Any

from ..image_errors import UnreadableImage

_STREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
"""First bytes of JPEG and JPEG-LS, of a JPEG 2000 code stream, and of a JP2 file, which the standard forbids."""

_RLE_SEGMENTS = range(1, 16)


def require_single_frame(dataset: Any, frame_bytes: int | None = None) -> None:
    """Check that pixel data contain one frame; `frame_bytes` is the size of an uncompressed frame.

    After an uncompressed frame, less than another frame, or only zeros, is padding.

    Raises:
        UnreadableImage: they contain several frames.
    """
    if frame_bytes is None:
        frames = _compressed_frames(dataset)
    else:
        data = dataset.PixelData
        frames = max(1, len(data) // frame_bytes)
        if frames > 1 and data.count(0, frame_bytes) == len(data) - frame_bytes:
            frames = 1
    if frames > 1:
        raise UnreadableImage(
            f"DICOM with {frames} frames, of which its header counts 1: export the frame you mean as a DICOM file of "
            "its own"
        )


def _compressed_frames(dataset: Any) -> int:
    """Number of frames in an offset table, or of fragments that start a frame (PS3.5 A.4)."""
    from pydicom.encaps import generate_fragments, parse_basic_offsets
    from pydicom.uid import RLELossless

    file = BytesIO(dataset.PixelData)
    listed = len(parse_basic_offsets(file))
    extended = len(dataset.get("ExtendedOffsetTable") or b"") // 8
    begins = _begins_run_lengths if dataset.file_meta.TransferSyntaxUID == RLELossless else _begins_stream
    return max(listed, extended, sum(begins(fragment) for fragment in generate_fragments(file)))


def _begins_stream(fragment: bytes) -> bool:
    return fragment.startswith(_STREAM_STARTS)


def _begins_run_lengths(fragment: bytes) -> bool:
    """Whether a fragment starts with an RLE header: number of segments and 15 offsets, the first of them 64 (G.5)."""
    if len(fragment) < 64:
        return False
    segments, *offsets = struct.unpack("<16I", fragment[:64])
    return segments in _RLE_SEGMENTS and offsets[0] == 64 and not any(offsets[segments:])

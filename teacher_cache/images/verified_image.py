"""Reading exactly the image that a manifest or a store's plan lists: the bytes are hashed before they are decoded."""

from pathlib import Path

from .canonical import DecodedImage, ReducedJpeg, decode_image
from .identity import image_hash as hash_bytes
from .image_errors import UnreadableImage
from .raster.raster_decoding import Reduction
from .safe_read import read_image_bytes

CHANGED = "the file has changed since it was hashed"
"""Reason of a `ChangedImage`. It contains no hash, because reasons are written to stores, whose hashes may be keyed."""


class ChangedImage(UnreadableImage):
    """The file contains another image than the one that was hashed."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(CHANGED)
        self.expected = expected
        """SHA-256 of the file's bytes when they were hashed."""
        self.actual = actual
        """Current SHA-256 of its bytes."""


def read_expected_image(
    path: Path, image_hash: str, pixel_hash: str | None = None, reduction: Reduction | None = None
) -> DecodedImage:
    """Read a file once, check that it contains the expected image, and decode the same bytes.

    The image is the expected one if its bytes have `image_hash` (the plain SHA-256, never a keyed one), or if its
    pixels have `pixel_hash`, as after lossless re-saving. With a `reduction`, a JPEG with the expected bytes and a
    known `pixel_hash` is decoded at a reduced size and keeps that hash; without a known hash it is decoded in full.

    Raises:
        ChangedImage: it is another image.
        UnreadableImage: the file cannot be read, or is the expected one and cannot be decoded.
    """
    data = read_image_bytes(path)
    actual = hash_bytes(data)
    reduced = None
    if reduction is not None and pixel_hash is not None and actual == image_hash:
        reduced = ReducedJpeg(reduction, pixel_hash)
    try:
        decoded = decode_image(data, reduced)
    except UnreadableImage as error:
        if actual != image_hash:
            raise ChangedImage(image_hash, actual) from error
        raise
    if actual != image_hash and decoded.pixel_hash != pixel_hash:
        raise ChangedImage(image_hash, actual)
    return decoded


def describe_change(path: Path, expected: str, actual: str, *, what: str = "image") -> str:
    """The message for a file that is not the one in the manifest, with both SHA-256 digests."""
    return (
        f"{path} is not the {what} that the manifest names: its bytes have SHA-256 {actual[:12]}..., the manifest's "
        f"{what} has {expected[:12]}.... Was the file renamed, swapped or replaced? `medalign data check MANIFEST "
        f"--hashes` checks every file and says which {what} is where; after an intended change, import the data set "
        "again"
    )

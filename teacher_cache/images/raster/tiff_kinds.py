"""Kinds of TIFF files according to their tags, and which of them Pillow reads correctly (TIFF 6.0)."""

from typing import Any

from ..image_errors import UnreadableImage

BY_PILLOW = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946)
"""Compressions that every build of Pillow supports: none, fax, LZW, JPEG, deflate, PackBits."""

_SOMETIMES_BY_PILLOW = (50000, 34925)
"""Zstandard and LZMA, if Pillow's libtiff supports them."""

FAX = (2, 3, 4)
"""Fax compressions; without tag 262 their white is zero."""

UNCOMPRESSED, PLANES = 1, 2
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
GRAY = (WHITE_IS_ZERO, BLACK_IS_ZERO)
_UNSIGNED, _UNDEFINED = 1, 4

_COLORS = {
    **dict.fromkeys(GRAY, "gray"),
    RGB: "RGB",
    PALETTE: "palette",
    4: "transparency mask",
    CMYK: "CMYK",
    YCBCR: "YCbCr",
    8: "CIELAB",
    9: "ICCLAB",
    10: "ITULAB",
    32803: "color filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
"""Values of tag 262."""


def not_read(page: Any, why: str = "") -> UnreadableImage:
    """The error for an unsupported kind of file, which may be intact; it names the kind."""
    bits = page.bitspersample
    samples = page.samplesperpixel
    color = _COLORS.get(page.photometric, f"photometric interpretation {int(page.photometric)}")
    packing = "uncompressed" if page.compression == UNCOMPRESSED else f"compression {int(page.compression)}"
    widths = ", ".join(str(width) for width in bits) if isinstance(bits, tuple) else str(bits)
    kind = f"{color}, {samples} sample{'' if samples == 1 else 's'} of {widths} bits, {packing}"
    return UnreadableImage(f"TIFF of a kind that medalign does not support ({why or kind}): save it as PNG")


def is_read_right_by_pillow(page: Any, big_endian: bool) -> bool:
    """Whether Pillow decodes a page correctly according to its tags, or rejects it.

    Raises:
        UnreadableImage: neither Pillow nor tifffile supports its kind.
    """
    bits, photometric = page.bitspersample, page.photometric
    if isinstance(bits, tuple):
        raise not_read(page)
    if photometric == YCBCR and page.compression == UNCOMPRESSED and _has_fewer_chroma_samples(page):
        raise not_read(
            page, f"YCbCr, {page.samplesperpixel} samples of {bits} bits, uncompressed, with fewer chroma samples"
        )
    if page.compression not in BY_PILLOW:
        return page.compression in _SOMETIMES_BY_PILLOW and photometric not in (*GRAY, RGB)
    if 262 not in page.tags and page.samplesperpixel <= 2 and page.compression not in FAX:
        return False
    if bits <= 8:
        return _is_plain(page, bits)
    if photometric in (*GRAY, RGB, PALETTE):
        return False
    if photometric == CMYK and page.samplesperpixel > 4:
        return False
    return bool(page.planarconfig != PLANES) if page.compression == UNCOMPRESSED else not big_endian


def _is_plain(page: Any, bits: int) -> bool:
    """Whether it is a kind of up to 8 bits that Pillow supports and decodes correctly."""
    photometric, samples = page.photometric, page.samplesperpixel
    if photometric == PALETTE:
        return bits in (1, 2, 4, 8) and samples <= 2 and page.colormap is not None and bool(page.colormap.max() >= 256)
    if photometric == CMYK:
        return bool(samples <= 4)
    if photometric not in (*GRAY, RGB):
        return True
    if page.sampleformat not in (_UNSIGNED, _UNDEFINED):
        return False
    if photometric == RGB:
        return bits == 8
    with_alpha = samples == 2 and bits == 8 and len(page.extrasamples) == 1
    with_alpha = with_alpha and photometric == BLACK_IS_ZERO and page.planarconfig != PLANES
    return bits in (1, 2, 4, 8) and (samples == 1 or with_alpha)


def _has_fewer_chroma_samples(page: Any) -> bool:
    """Whether chroma is subsampled, by tag 530; if that is missing, by the size of the data, because writers of full
    chroma omit it."""
    if 530 in page.tags:
        return tuple(page.tags.valueof(530)) != (1, 1)
    return bool(sum(page.databytecounts) < page.imagewidth * page.imagelength * page.samplesperpixel)

"""Ordinary, odd and hostile image files that are no DICOM, and what must come of each."""

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageOps

WIDTH, HEIGHT = 48, 32
GOOD = f"{WIDTH} x {HEIGHT}"


@dataclass(frozen=True, slots=True)
class Odd:
    """One file: what it is, how it is made, and its outcome (a size, or the reason it is refused)."""

    what: str
    make: Callable[[Path], None]
    outcome: str = GOOD
    close: float | None = None
    """Where the pixels are known: the largest mean difference from the scene, in gray levels."""
    gray: bool = False
    """The file shows the scene's gray."""
    name: str = "image"


def scene() -> Image.Image:
    """Unlike itself in every orientation, smooth enough for lossy codecs."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    red = 255 * x / (WIDTH - 1)
    green = 255 * y / (HEIGHT - 1)
    blue = 128 + 100 * np.sin(x / 9) * np.cos(y / 7)
    return Image.fromarray(np.stack([red, green, blue], axis=2).astype(np.uint8))


def gray_scene() -> Image.Image:
    """From 0 to 255, so that stretching it changes nothing."""
    return ImageOps.autocontrast(scene().convert("L"))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def content(data: bytes | Callable[[], bytes]) -> Callable[[Path], None]:
    """A file of these bytes; a function is called only when the file is made."""
    return lambda path: path.write_bytes(data if isinstance(data, bytes) else data()) and None


def turned(kind: str, orientation: int) -> bytes:
    """The scene stored so that its EXIF orientation brings it upright."""
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    undo |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = scene().transpose(Image.Transpose[undo[orientation]])
    return saved(stored, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def ycck_jpeg() -> bytes:
    """As Photoshop writes it: the complement in YCbCr, inverted once more by convention, black of zero."""
    planes = [
        *Image.eval(scene(), lambda value: 255 - value).convert("YCbCr").split(),
        Image.new("L", scene().size, 255),
    ]
    stored = Image.merge("CMYK", [Image.eval(plane, lambda value: 255 - value) for plane in planes])
    data = saved(stored, "JPEG", quality=95, subsampling=0)
    transform = data.index(b"Adobe") + 11
    return data[:transform] + b"\x02" + data[transform + 1 :]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, color: int = 0) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + png_chunk(b"IEND", b"")


def png_with(*chunks: bytes) -> bytes:
    """The scene with chunks before its pixels."""
    data = saved(scene(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def many_scans(count: int) -> bytes:
    """A progressive JPEG of 4096 x 4096 pixels whose last scan is there again and again."""
    data = saved(Image.new("L", (4096, 4096)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def tiff(kind: str, image: Image.Image, **options: Any) -> bytes:
    return saved(image, "TIFF", **({"compression": kind} if kind else {}), **options)


def twelve_bit_tiff() -> bytes:
    """Two 12-bit samples in three bytes, as digitisers write, behind the directory; Pillow has no writer for it."""
    values = (np.asarray(gray_scene()).astype(int) * 4095 // 255).reshape(-1, 2)
    packed = np.stack([values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255], axis=1)
    strip = packed.astype(np.uint8).tobytes()
    tags = [(256, 3, WIDTH), (257, 3, HEIGHT), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 122), (277, 3, 1)]
    tags += [(278, 3, HEIGHT), (279, 4, len(strip))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4 + strip


def tiff_looped() -> bytes:
    """Its first directory says that the next one is the first."""
    data = tiff("", gray_scene())
    first = struct.unpack("<I", data[4:8])[0]
    end = first + 2 + 12 * struct.unpack("<H", data[first : first + 2])[0]
    return data[:end] + struct.pack("<I", first) + data[end + 4 :]


def gray16() -> Image.Image:
    return Image.fromarray(np.asarray(gray_scene()).astype(np.uint16) * 257)


def deep_jpeg(values: np.ndarray, bits: int, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(values, bitspersample=bits, **options))


def twelve_bit_png() -> bytes:
    return saved(Image.fromarray(gray16_values() >> 4), "PNG")


def gray16_values() -> np.ndarray:
    return np.asarray(gray16())


def rgb16_values() -> np.ndarray:
    return np.asarray(scene()).astype(np.uint16) * 257


def deep_tiff(values: np.ndarray, kind: str, **options: Any) -> bytes:
    """Samples that Pillow does not write."""
    file = io.BytesIO()
    tifffile.imwrite(file, values.astype(kind), **({"photometric": "minisblack"} | options))
    return file.getvalue()


def planar_tiff() -> bytes:
    return deep_tiff(rgb16_values().transpose(2, 0, 1), "u2", photometric="rgb", planarconfig="separate")


def white_is_zero_tiff() -> bytes:
    return deep_tiff(65535 - gray16_values(), "u2", photometric="miniswhite")


def signed_tiff() -> bytes:
    return deep_tiff(gray16_values().astype(int) - 32768, "i2", byteorder=">", compression="lzw")


def tiff_with_thumbnail() -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.asarray(gray_scene()), photometric="minisblack")
        writer.write(np.zeros((4, 6), np.uint8), photometric="minisblack", subfiletype=1)
    return file.getvalue()


def gray_float() -> Image.Image:
    values = np.asarray(gray_scene()).astype(np.float32) / 255 * 3 - 1
    values[0, 0] = np.nan
    return Image.fromarray(values)


def dpi_corrupt_exif() -> bytes:
    data = saved(scene(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12")
    assert b"Exif" in data
    return data


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def two() -> dict[str, Any]:
    return {"save_all": True, "append_images": [Image.new("RGB", (WIDTH, HEIGHT), "red")]}


def in_name(name: str) -> Callable[[Path], None]:
    """The scene under another name, so that the name is what is tested."""
    return lambda path: path.write_bytes(saved(scene(), "PNG")) and None


DAMAGED = "truncated or damaged image data: get the file again from its source"
JPEG_DAMAGE = (
    "truncated or damaged image data: the JPEG has too little or too much data for its size; get the file again from "
    "its source"
)
NO_END = "truncated or damaged image data: its JPEG 2000 code stream has no end; get the file again from its source"
FRAMES = "{} with several frames or pages: export the one you mean as an image of its own"
UNKNOWN = "not an image in a known format ({} bytes)"
UNKNOWN_KIND = (
    "an image that is damaged, or of a kind that medalign does not support: if a viewer shows it, save it from there "
    "as PNG"
)

READ = [
    Odd("JPEG", content(lambda: saved(scene(), "JPEG", quality=95)), close=4),
    Odd("JPEG, progressive", content(lambda: saved(scene(), "JPEG", quality=95, progressive=True)), close=4),
    Odd("JPEG, gray", content(lambda: saved(gray_scene(), "JPEG", quality=95)), close=4, gray=True),
    Odd("JPEG, CMYK", content(lambda: saved(scene().convert("CMYK"), "JPEG", quality=95)), close=6),
    Odd("JPEG, YCCK of Photoshop", content(ycck_jpeg), close=6),
    *(
        Odd(f"JPEG, EXIF orientation {number}", content(lambda number=number: turned("JPEG", number)), close=4)
        for number in range(2, 9)
    ),
    Odd("JPEG with broken EXIF", content(dpi_corrupt_exif), close=4),
    Odd("JPEG with a preview behind it (MPO)", content(lambda: saved(scene(), "MPO", quality=95, **two())), close=4),
    Odd(
        "JPEG with 64 KiB of noise behind it",
        content(lambda: saved(scene(), "JPEG", quality=95) + bytes(65536)),
        close=4,
    ),
    Odd("PNG", content(lambda: saved(scene(), "PNG")), close=0),
    Odd("PNG named .jpg", content(lambda: saved(scene(), "PNG")), close=0, name="scan.jpg"),
    Odd("PNG, 16-bit gray", content(lambda: saved(gray16(), "PNG")), close=0, gray=True),
    Odd(
        "PNG, 16-bit RGB",
        content(
            lambda: png(
                WIDTH,
                HEIGHT,
                png_chunk(
                    b"IDAT",
                    zlib.compress(
                        b"".join(
                            b"\0" + (row.astype(">u2") * 257).astype(">u2").tobytes() for row in np.asarray(scene())
                        )
                    ),
                ),
                depth=16,
                color=2,
            )
        ),
        close=0,
    ),
    Odd("PNG, 1 bit", content(lambda: saved(gray_scene().convert("1"), "PNG"))),
    Odd("PNG, palette", content(lambda: saved(scene().quantize(256), "PNG")), close=10),
    Odd(
        "PNG, palette with transparency", content(lambda: saved(scene().quantize(256), "PNG", transparency=3)), close=10
    ),
    Odd("PNG, RGB with alpha", content(lambda: saved(scene().convert("RGBA"), "PNG")), close=0),
    Odd("PNG, gray with alpha", content(lambda: saved(gray_scene().convert("LA"), "PNG")), close=0, gray=True),
    Odd("PNG, EXIF orientation 6", content(lambda: turned("PNG", 6)), close=0),
    Odd("PNG of one pixel", content(lambda: saved(Image.new("L", (1, 1)), "PNG")), "1 x 1"),
    Odd("TIFF", content(lambda: tiff("", scene())), close=0),
    Odd("TIFF, LZW", content(lambda: tiff("tiff_lzw", scene())), close=0),
    Odd("TIFF, deflate", content(lambda: tiff("tiff_adobe_deflate", scene())), close=0),
    Odd("TIFF, PackBits", content(lambda: tiff("packbits", scene())), close=0),
    Odd("TIFF, JPEG", content(lambda: tiff("jpeg", scene(), quality=95)), close=6),
    Odd("TIFF, fax group 4", content(lambda: tiff("group4", gray_scene().convert("1")))),
    Odd("TIFF, 16-bit gray", content(lambda: tiff("tiff_lzw", gray16())), close=0, gray=True),
    Odd("TIFF, 16-bit gray, big endian", content(lambda: tiff("", gray16(), big_endian=True)), close=0, gray=True),
    Odd("TIFF, 12-bit gray", content(twelve_bit_tiff), close=1, gray=True),
    Odd("TIFF, 32-bit integers", content(lambda: tiff("", gray_scene().convert("I")))),
    Odd("TIFF, floating point with a NaN", content(lambda: tiff("", gray_float()))),
    Odd("TIFF, CMYK", content(lambda: tiff("tiff_lzw", scene().convert("CMYK"))), close=1),
    Odd("TIFF, palette", content(lambda: tiff("", scene().quantize(256))), close=10),
    Odd("TIFF, orientation 6", content(lambda: turned("TIFF", 6)), close=0),
    Odd("TIFF, 16-bit gray, white is zero", content(lambda: white_is_zero_tiff()), close=0, gray=True),
    Odd("TIFF, signed 8-bit gray", content(lambda: deep_tiff(gray16_values() // 257 - 128, "i1")), close=1, gray=True),
    Odd("TIFF, 16-bit float", content(lambda: deep_tiff(gray16_values() / 65535, "f2")), close=1, gray=True),
    Odd("TIFF, 16-bit RGB by plane", content(lambda: planar_tiff()), close=1),
    Odd("TIFF, big-endian signed 16 bit, LZW", content(lambda: signed_tiff()), close=1, gray=True),
    Odd("TIFF with a thumbnail behind it", content(lambda: tiff_with_thumbnail()), close=0, gray=True),
    Odd("TIFF whose directory names itself as the next", content(tiff_looped), close=0, gray=True),
    Odd("BMP", content(lambda: saved(scene(), "BMP")), close=0),
    Odd("BMP, palette", content(lambda: saved(scene().quantize(256), "BMP")), close=10),
    Odd("GIF", content(lambda: saved(scene(), "GIF")), close=10),
    Odd("WebP", content(lambda: saved(scene(), "WEBP", quality=95)), close=6),
    Odd("WebP, lossless with alpha", content(lambda: saved(scene().convert("RGBA"), "WEBP", lossless=True)), close=0),
    Odd("JPEG 2000", content(lambda: saved(scene(), "JPEG2000")), close=0),
    Odd("JPEG 2000, 16-bit gray", content(lambda: saved(gray16(), "JPEG2000")), close=0, gray=True),
    Odd("JPEG 2000, 16-bit RGB", content(lambda: imagecodecs.jpeg2k_encode(rgb16_values(), level=0)), close=1),
    Odd("JPEG of 12 bits", content(lambda: deep_jpeg(gray16_values() >> 4, 12)), close=4, gray=True),
    Odd("JPEG, lossless, 16 bit", content(lambda: deep_jpeg(gray16_values(), 16, lossless=True)), close=0, gray=True),
    Odd("JPEG-LS, 16 bit", content(lambda: imagecodecs.jpegls_encode(gray16_values())), close=0, gray=True),
    Odd("PNG, 12 bits in words of 16", content(lambda: twelve_bit_png()), close=1, gray=True),
    Odd("PPM", content(lambda: saved(scene(), "PPM")), close=0),
    Odd("PGM, 16 bit", content(lambda: saved(gray16(), "PPM")), close=0, gray=True),
    Odd("PGM in decimal digits", content(b"P2\n3 2\n255\n0 50 100\n150 200 250\n"), "3 x 2"),
    Odd("a name with a line feed", in_name("a\nb.png"), close=0, name="a\nb.png"),
    Odd("a name with bytes that are no UTF-8", in_name("x"), close=0, name=os.fsdecode(b"caf\xe9.png")),
    Odd("a name with terminal codes and markup", in_name("x"), close=0, name="\x1b[31m[bold]{0}%s.png"),
    Odd("a link to a good file", lambda path: _link_to_good(path), close=0),
]


def _link_to_good(path: Path) -> None:
    target = path.with_name(".target of the link")
    target.write_bytes(saved(scene(), "PNG"))
    path.symlink_to(target)


TEXT = "text or a color profile in it unpacks to more than a megabyte: save it again without metadata"
BOMB = "more than the 80000000 pixels that one image may have: crop or resize it"

REFUSED = [
    Odd("GIF, animated", content(lambda: saved(scene(), "GIF", **two())), FRAMES.format("GIF")),
    Odd("PNG, animated", content(lambda: saved(scene(), "PNG", **two())), FRAMES.format("PNG")),
    Odd("WebP, animated", content(lambda: saved(scene(), "WEBP", **two())), FRAMES.format("WEBP")),
    Odd("TIFF of two pages", content(lambda: saved(scene(), "TIFF", **two())), FRAMES.format("TIFF")),
    Odd("TIFF, CIELAB", content(lambda: _lab()), "TIFF in color mode LAB: save it as RGB"),
    Odd("an empty file", content(lambda: b""), "an empty file (0 bytes)"),
    Odd("text named .jpg", content(b"no image"), UNKNOWN.format(8), name="text.jpg"),
    Odd(
        "a web page named .png",
        content(b"<!DOCTYPE html><title>404</title>"),
        "not an image: an HTML page, perhaps of a failed download",
        name="page.png",
    ),
    Odd(
        "a Git LFS pointer",
        content(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
        "not an image: a Git LFS pointer; `git lfs pull` fetches the file itself",
    ),
    Odd("a PDF named .jpg", content(b"%PDF-1.7\n"), "not an image: a PDF document", name="report.jpg"),
    Odd("a ZIP archive named .png", content(b"PK\x03\x04" + bytes(40)), "not an image: a ZIP archive", name="a.png"),
    Odd("a gzip archive", content(b"\x1f\x8b\x08" + bytes(40)), "not an image: a gzip archive"),
    Odd("an SVG drawing", content(b"<?xml version='1.0'?>\n<svg/>"), "not an image: an SVG drawing"),
    Odd("HEIF of a phone", content(b"\0\0\0\x18ftypheic" + bytes(40)), "not an image: HEIF or AVIF; save it as PNG"),
    Odd("PostScript named .png", content(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), UNKNOWN.format(47)),
    Odd("noise", content(lambda: np.random.default_rng(0).bytes(5000)), UNKNOWN.format(5000)),
    Odd("JPEG XL", content(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)), "not an image: JPEG XL; save it as PNG"),
    Odd("JPEG XR", content(b"II\xbc\x01" + bytes(40)), "not an image: JPEG XR; save it as PNG"),
    Odd(
        "an AppleDouble file named .png",
        content(b"\0\x05\x16\x07\0\x02\0\0" + bytes(40)),
        "not an image: an AppleDouble file of macOS, which holds no picture; delete it",
        name="a.png",
    ),
    Odd(
        "JPEG with its end behind half of its data",
        content(lambda: _half(noisy_jpeg()) + b"\xff\xd9"),
        JPEG_DAMAGE,
    ),
    Odd("JPEG with a hole of zeros", content(lambda: holed(noisy_jpeg())), JPEG_DAMAGE),
    Odd(
        "PNG drawn in its transparency alone",
        content(lambda: saved(transparent_drawing(), "PNG")),
        "PNG whose stored values vary from 0 to 255 and whose picture has one color: it is drawn in its transparency, "
        "or its palette has one color; flatten it and save it as PNG",
    ),
    Odd("half a JPEG", content(lambda: _half(saved(scene(), "JPEG"))), DAMAGED),
    Odd("half a PNG", content(lambda: _half(saved(scene(), "PNG"))), DAMAGED),
    Odd(
        "TIFF that says 60,000 samples in a pixel",
        content(
            lambda: twelve_bit_tiff().replace(
                struct.pack("<HHII", 277, 3, 1, 1), struct.pack("<HHII", 277, 3, 1, 60000)
            )
        ),
        "TIFF of 60000 samples in a pixel: export it as RGB or gray",
    ),
    Odd("half a TIFF", content(lambda: _half(twelve_bit_tiff())), DAMAGED),
    Odd(
        "half a TIFF that has its directory at the end",
        content(lambda: tiff("tiff_lzw", scene())[:2000]),
        DAMAGED,
    ),
    Odd("half a GIF", content(lambda: _half(saved(scene(), "GIF"), 0.9)), DAMAGED),
    Odd("half a BMP", content(lambda: _half(saved(scene(), "BMP"))), DAMAGED),
    Odd("half a WebP", content(lambda: _half(saved(scene(), "WEBP"))), DAMAGED),
    Odd("half a JPEG 2000", content(lambda: _half(saved(scene(), "JPEG2000"))), NO_END),
    Odd("a PNG of a signature alone", content(lambda: saved(scene(), "PNG")[:8]), UNKNOWN_KIND),
    Odd("PNG with a wrong checksum", content(lambda: _flipped(saved(scene(), "PNG"))), DAMAGED),
    Odd("PNG without pixels", content(lambda: png(4, 4)), DAMAGED),
    Odd("PNG whose text unpacks to 100 MB", content(lambda: _text_bomb()), TEXT),
    Odd("PNG, 60,000 x 60,000 pixels in half a megabyte", content(lambda: _png_bomb()), BOMB),
    Odd("GIF that says 65,535 x 65,535", content(lambda: _resized_gif(65535)), BOMB),
    Odd(
        "PNG that says 10,000 x 10,000",
        content(lambda: png(10000, 10000)),
        "10000 x 10000 pixels, more than the 80000000 that one image may have: crop or resize it",
    ),
    Odd(
        "PNG of 20,000 x 300",
        content(lambda: saved(Image.new("1", (20000, 300)), "PNG")),
        "20000 x 300 pixels, but one image may have at most 15000 on a side and an aspect ratio of 100 to 1: "
        "crop or resize it",
    ),
    Odd(
        "PNG of 1 x 200",
        content(lambda: saved(Image.new("1", (1, 200)), "PNG")),
        "1 x 200 pixels, but one image may have at most 15000 on a side and an aspect ratio of 100 to 1: "
        "crop or resize it",
    ),
    Odd(
        "JPEG of 17 megapixels in 1,005 scans",
        content(lambda: many_scans(1000)),
        "JPEG of 4096 x 4096 pixels in 1005 scans",
    ),
    Odd(
        "PGM of 34 MB of decimal digits",
        content(lambda: b"P2\n4000 4100\n255\n" + b"0 " * 17_000_000),
        "PNM in decimal digits, 34000017 bytes: save it as PNG",
    ),
    Odd("no file", lambda path: None, "cannot be read: No such file or directory"),
    Odd("a folder named .jpg", lambda path: path.mkdir(), "a folder, not a regular file", name="folder.jpg"),
    Odd("a pipe", lambda path: os.mkfifo(path), "a pipe, not a regular file"),
    Odd("a socket", lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "a socket, not a regular file"),
    Odd("a link to /dev/zero", lambda path: path.symlink_to("/dev/zero"), "a device, not a regular file"),
    Odd(
        "a link to a file that grows (/proc/version)",
        lambda path: path.symlink_to("/proc/version"),
        "the file changed while it was read",
    ),
    Odd("a link to nothing", lambda path: path.symlink_to("nowhere"), "a link to a file that does not exist"),
    Odd(
        "a link to itself", lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"
    ),
    Odd(
        "a file of 1 TiB, all holes",
        sparse,
        "1 TiB, more than the 512 MiB that one image may have",
    ),
]


def noisy_jpeg() -> bytes:
    """Large enough that its second half is more than a block."""
    noise = np.random.default_rng(2).integers(0, 60, (200, 300), dtype=np.uint8)
    return saved(Image.fromarray(noise + np.linspace(0, 190, 300).astype(np.uint8)), "JPEG", quality=90)


def holed(data: bytes) -> bytes:
    third = len(data) // 3
    return data[:third] + bytes(third) + data[2 * third :]


def transparent_drawing() -> Image.Image:
    drawing = Image.new("RGB", (WIDTH, HEIGHT))
    drawing.putalpha(gray_scene())
    return drawing


def _half(data: bytes, part: float = 0.5) -> bytes:
    return data[: int(len(data) * part)]


def _flipped(data: bytes) -> bytes:
    at = data.index(b"IDAT") + 30
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def _lab() -> bytes:
    return saved(Image.new("LAB", (4, 4)), "TIFF")


def _text_bomb() -> bytes:
    return png_with(png_chunk(b"zTXt", b"Comment\0\0" + b"\x78\x9c" + deflated_zeros(100)))


def deflated_zeros(megabytes: int) -> bytes:
    """Raw deflate of zeros: a flushed block can be repeated."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * megabytes + b"\x03\0"


def _png_bomb() -> bytes:
    return png(60000, 60000, png_chunk(b"IDAT", b"\x78\x9c" + deflated_zeros(430)), depth=1)


def _resized_gif(side: int) -> bytes:
    data = saved(scene(), "GIF")
    return data[:6] + struct.pack("<HH", side, side) + data[10:]

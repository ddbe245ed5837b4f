"""`--jpeg-scale reduced`: pictures reduced by libjpeg, recorded in the header, and never mixed with full ones."""

import hashlib
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from medalign.errors import StoreError
from medalign.progress import Silent
from medalign.teacher_cache.extraction.extension import extend
from medalign.teacher_cache.extraction.stage_one import ImageSource
from medalign.teacher_cache.geometry.square import jpeg_reduction
from medalign.teacher_cache.images import decode_image
from medalign.teacher_cache.sharing.merge import merge
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.records.zarr_metadata import read_header
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.workers.engines import Crew
from medalign.teacher_cache.workers.prefetch import FailedImage, PreparedImage, prepare_image
from PIL import Image

SPEC = teacher_spec("phantom-tiny")
FILL = (122, 116, 104)


def radiograph(width: int, height: int, seed: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).normal(0, 5, (height, width))
    return np.clip(120 + 70 * np.sin(x / 31 + seed) + 40 * np.cos(y / 23) + noise, 0, 255).astype(np.uint8)


def write(path: Path, width: int, height: int, seed: int = 0, **options) -> ImageSource:
    Image.fromarray(radiograph(width, height, seed)).save(path, "JPEG", quality=92, **options)
    data = path.read_bytes()
    return ImageSource(path, hashlib.sha256(data).hexdigest(), decode_image(data).pixel_hash)


def reduced(source: ImageSource) -> PreparedImage:
    prepared = prepare_image(source, SPEC, "pad", "reduced")
    assert isinstance(prepared, PreparedImage)
    return prepared


@pytest.mark.parametrize(("width", "height", "factor"), [(384, 300, 2), (512, 768, 4), (768, 768, 4), (1536, 1024, 8)])
def test_the_square_is_made_from_libjpegs_reduced_picture(tmp_path, width, height, factor):
    """Sizes and padding of whole blocks, where nothing is rounded."""
    source = write(tmp_path / "a", width, height)
    with Image.open(source.path) as image:
        image.draft("L", (width // factor, height // factor))
        assert image.size == (width // factor, height // factor)
        small = image.convert("RGB")
    side = max(small.size)
    square = Image.new("RGB", (side, side), FILL)
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    prepared = reduced(source)
    assert np.array_equal(prepared.square, square.resize((96, 96), Image.Resampling.BICUBIC))
    assert (prepared.size, prepared.pixel_hash) == ((width, height), source.pixel_hash)


@pytest.mark.parametrize("geometry", ["pad", "crop"])
@pytest.mark.parametrize(("width", "height"), [(767, 701), (769, 651), (775, 769), (1541, 1537), (601, 999)])
def test_nothing_moves_in_a_reduced_picture(tmp_path, geometry, width, height):
    """The center of a blob near each corner, in pixels of the square, in the reduced and in the full picture."""
    y, x = np.mgrid[0:height, 0:width]
    for where in ((0.25, 0.25), (0.75, 0.75)):
        row, column = (height - 1) * where[0], (width - 1) * where[1]
        values = 250 * np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * 40**2))
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / "a", "JPEG", quality=95)
        data = (tmp_path / "a").read_bytes()
        source = ImageSource(tmp_path / "a", hashlib.sha256(data).hexdigest(), decode_image(data).pixel_hash)
        centers = [_center(prepare_image(source, SPEC, geometry, scale)) for scale in ("full", "reduced")]
        assert np.abs(centers[0] - centers[1]).max() < 0.03


def _center(prepared: PreparedImage | FailedImage) -> np.ndarray:
    assert isinstance(prepared, PreparedImage)
    bright = np.clip(prepared.square[..., 0].astype(float) - 130, 0, None)  # above the padding
    return np.array([(bright * grid).sum() / bright.sum() for grid in np.mgrid[0:96, 0:96]])


def test_reduction_leaves_twice_the_square():
    assert [jpeg_reduction(2544, 3056, 224, "pad"), jpeg_reduction(2544, 3056, 336, "crop")] == [4, 2]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_reduced_picture_is_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    source = write(tmp_path / "a", 800, 600, exif=exif)
    full = prepare_image(source, SPEC, "pad")
    assert isinstance(full, PreparedImage)
    assert reduced(source).size == full.size == ((600, 800) if orientation > 4 else (800, 600))
    assert abs(reduced(source).square.astype(int) - full.square).mean() < 2


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 8}])
def test_damage_is_detected_in_reduced_pictures(tmp_path, options):
    source = write(tmp_path / "a", 800, 600, **options)
    assert np.array_equal(reduced(source).square, reduced(source).square)
    data = source.path.read_bytes()
    source.path.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    broken = ImageSource(source.path, hashlib.sha256(source.path.read_bytes()).hexdigest(), source.pixel_hash)
    result = prepare_image(broken, SPEC, "pad", "reduced")
    assert isinstance(result, FailedImage)
    assert result.reason.startswith("truncated or damaged image data")


def test_pixels_that_must_be_hashed_are_decoded_in_full(tmp_path):
    """If the pixel hash is unknown, or the file is not the one that was hashed."""
    source = write(tmp_path / "a", 800, 600)
    full = prepare_image(source, SPEC, "pad")
    unknown = prepare_image(ImageSource(source.path, source.image_hash), SPEC, "pad", "reduced")
    assert isinstance(full, PreparedImage)
    assert isinstance(unknown, PreparedImage)
    assert np.array_equal(unknown.square, full.square)
    assert unknown.pixel_hash == source.pixel_hash
    resaved = ImageSource(source.path, "0" * 64, source.pixel_hash)
    assert isinstance(prepare_image(resaved, SPEC, "pad", "reduced"), PreparedImage)
    changed = prepare_image(ImageSource(source.path, "0" * 64, "1" * 64), SPEC, "pad", "reduced")
    assert isinstance(changed, FailedImage)


def test_dicom_and_png_are_not_reduced(tmp_path):
    file = BytesIO()
    Image.fromarray(radiograph(800, 600, 1)).save(file, "PNG")
    (tmp_path / "a").write_bytes(file.getvalue())
    source = ImageSource(
        tmp_path / "a", hashlib.sha256(file.getvalue()).hexdigest(), decode_image(file.getvalue()).pixel_hash
    )
    full = prepare_image(source, SPEC, "pad")
    assert isinstance(full, PreparedImage)
    assert np.array_equal(reduced(source).square, full.square)


def test_stores_record_how_their_jpegs_were_decoded(tmp_path, run_extract, teacher):
    sources = [write(tmp_path / str(seed), 800, 600, seed) for seed in range(6)]
    plain, small = tmp_path / "full.zarr", tmp_path / "reduced.zarr"
    run_extract(sources[:3], plain)
    run_extract(sources[:3], small, jpeg_scale="reduced")
    full_header, header = read_header(plain), read_header(small)
    assert (full_header.jpeg_scale, header.jpeg_scale) == ("full", "reduced")
    assert full_header.fingerprint != header.fingerprint
    assert "jpeg_scale" not in full_header.content(), "fingerprints of older stores stay"
    assert "jpeg_scale" not in json.loads((plain / "zarr.json").read_text())["attributes"]["medalign"]
    with pytest.raises(StoreError, match="jpeg_scale: full, not reduced"):
        run_extract(sources[:3], small, jpeg_scale="full", resume=True)
    assert run_extract(sources[:3], small, resume=True).shards_done == 0
    with pytest.raises(StoreError, match="jpeg_scale is full and reduced"):
        merge([str(plain), str(small)], tmp_path / "merged.zarr", progress=Silent())
    extend(teacher, sources, small, crew=Crew(decode_workers=1))
    again = tmp_path / "again.zarr"
    root = run_extract(sources, again, jpeg_scale="reduced").root_sha256
    assert open_store(small).header.jpeg_scale == "reduced"
    assert (small / "index.parquet").exists()
    assert read_header(small).fingerprint == read_header(again).fingerprint
    assert root is not None

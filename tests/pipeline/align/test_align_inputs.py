"""Odd inputs of `student align`: equal pixels, features that are not finite, wrong keys, failed rows, leftovers."""

from pathlib import Path

import polars as pl
import pytest
import torch
from align_labs import align_settings, align_values, make_align_lab
from medalign.errors import InputError, MedalignError, StoreError
from medalign.pipeline.align.align_images import read_image_sets
from medalign.pipeline.align.align_plan import plan_align
from medalign.pipeline.align.align_settings import AlignSettings
from medalign.pipeline.align.align_student import run_align
from medalign.pipeline.data.manifest import Manifest
from medalign.progress import Silent
from medalign.student.translation.preparation import FOLDER
from medalign.student.translation.ridge import RidgeSums
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store.format.keyed_hashes import make_key, read_key
from stores import write_store


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    return make_align_lab(tmp_path_factory.mktemp("lab"))


def settings_of(lab: Path, **overrides: object) -> AlignSettings:
    return align_settings(align_values(lab, steps=2), **overrides)


def image_hashes(lab: Path) -> list[str]:
    return Manifest.read(lab / "images.parquet").images()["image_hash"].to_list()


def with_equal_pixels(lab: Path, first: int, second: int) -> Path:
    """The lab's images, of which the second file of two has the pixels of the first."""
    manifest = Manifest.read(lab / "images.parquet")
    rows = manifest.frame.with_row_index()
    copied = rows["pixel_hash"][first]
    frame = rows.with_columns(
        pl.when(pl.col("index") == second).then(pl.lit(copied)).otherwise("pixel_hash").alias("pixel_hash")
    ).drop("index")
    path = lab / f"equal-{first}-{second}.parquet"
    Manifest(frame, manifest.root, "noise").write(path)
    return path


def test_of_two_files_with_equal_pixels_in_one_list_the_first_counts(lab):
    """Rows 0 and 1 are anchors: a copy among those that are held out would be measured on what was fitted."""
    settings = settings_of(lab, data__anchors=with_equal_pixels(lab, 0, 1))
    sets, _ = read_image_sets(settings.data, seed=0)
    hashes = [image.image_hash for image in (*sets.anchors, *sets.held_out_anchors)]
    assert len(hashes) == 10
    assert image_hashes(lab)[0] in hashes
    assert image_hashes(lab)[1] not in hashes


def test_equal_pixels_in_both_lists_are_refused(lab):
    """Row 2 is a target, row 0 an anchor; their files differ."""
    path = with_equal_pixels(lab, 0, 2)
    with pytest.raises(InputError, match="1 of 5 target images are anchors too"):
        read_image_sets(settings_of(lab, data__targets=path, data__anchors=path).data, seed=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_give_no_translation(value):
    generator = torch.Generator().manual_seed(0)
    features, tokens = torch.randn(6, 4, 3, generator=generator), torch.randn(6, 4, 2, generator=generator)
    features[3, 1, 2] = value
    sums = RidgeSums(cells=4, channels=3, width=2)
    sums.add(features, tokens)
    with pytest.raises(MedalignError, match="not finite, or too nearly dependent"):
        sums.solve(1.0)


def test_a_wrong_hash_key_and_a_missing_one_are_named(lab, tmp_path):
    right, wrong = tmp_path / "right.key", tmp_path / "wrong.key"
    make_key(right)
    make_key(wrong)
    key, hashes = read_key(right), image_hashes(lab)
    store = write_store(tmp_path / "keyed.zarr", range(16), hashes=hashes, key=key, grid=PatchGrid(3, 3))
    plan = plan_align(settings_of(lab, data__store=str(store), data__hash_key=str(right)))
    assert plan.summary()["store_rows"] == "16 of 16 images"
    with pytest.raises(StoreError, match="key"):
        plan_align(settings_of(lab, data__store=str(store), data__hash_key=str(wrong)))
    with pytest.raises(StoreError, match="key"):
        plan_align(settings_of(lab, data__store=str(store)))


def test_images_whose_row_failed_are_named(lab, tmp_path):
    """The image has no row of its own, nor one of equal pixels."""
    manifest, path = Manifest.read(lab / "images.parquet"), tmp_path / "images.parquet"
    frame = manifest.frame.with_columns(pl.lit(None, pl.String).alias("pixel_hash"))
    Manifest(frame, manifest.root, "noise").write(path)
    store = write_store(
        tmp_path / "failed.zarr", range(16), hashes=image_hashes(lab), failing=[3], grid=PatchGrid(3, 3)
    )
    with pytest.raises(StoreError, match="1 of 16 images have no row"):
        plan_align(
            settings_of(
                lab,
                data__store=str(store),
                data__targets=path,
                data__anchors=path,
                data__targets_root=lab / "images",
                data__anchors_root=lab / "images",
            )
        )


def test_temporary_files_of_a_killed_start_are_replaced(lab, tmp_path):
    """A start that was killed before its first checkpoint leaves parts of the translation."""
    out = tmp_path / "adapter"
    (out / FOLDER).mkdir(parents=True)
    (out / FOLDER / ".anchor-tokens.bin.0123.tmp").write_bytes(b"half")
    run_align(settings_of(lab), out, Silent())
    assert not list((out / FOLDER).glob("*.tmp")) + list((out / FOLDER).glob(".*"))
    assert (out / "adapter_model.safetensors").is_file()

"""Identities of files equal what one decodes by hand, in order, and missing files are all named."""

import hashlib
import os

import numpy as np
import pytest
from medalign.errors import InputError
from medalign.path_checks import is_absent
from medalign.pipeline.data.image_hashing import hash_images, require_files
from medalign.progress import Silent
from medalign.teacher_cache.images import read_image
from medalign.teacher_cache.workers.cores import usable_cores
from PIL import Image


class Counting(Silent):
    def __init__(self):
        self.started = []
        self.steps = 0

    def start(self, label, total):
        self.started.append(total)

    def advance(self, steps=1):
        self.steps += steps


def write_images(folder, count):
    generator = np.random.default_rng(7)
    paths = []
    for index in range(count):
        path = folder / f"{index}.png"
        Image.fromarray(generator.integers(0, 255, (5 + index, 7), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("workers", [1, 2, None])
def test_identities_are_in_order_and_equal_those_worked_out_one_by_one(tmp_path, workers):
    paths = write_images(tmp_path, 9)[::-1]
    progress = Counting()
    identities = hash_images(paths, progress, workers)
    assert [identity.path for identity in identities] == paths
    for path, identity in zip(paths, identities, strict=True):
        decoded = read_image(path)
        assert identity.image_hash == hashlib.sha256(path.read_bytes()).hexdigest()
        assert identity.pixel_hash == decoded.pixel_hash
        assert (identity.width, identity.height) == (decoded.width, decoded.height)
        assert identity.problem is None
    assert (progress.started, progress.steps) == ([9], 9)


def test_lossless_resaving_changes_the_file_hash_alone(tmp_path):
    (path,) = write_images(tmp_path, 1)
    resaved = tmp_path / "resaved.bmp"
    with Image.open(path) as image:
        image.save(resaved)
    one, other = hash_images([path, resaved], Silent())
    assert one.image_hash != other.image_hash
    assert one.pixel_hash == other.pixel_hash


def test_an_undecodable_file_keeps_its_hash_and_says_why(tmp_path):
    paths = write_images(tmp_path, 2)
    truncated = tmp_path / "cut.png"
    truncated.write_bytes(paths[0].read_bytes()[:60])
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    good, cut, no_image = hash_images([paths[1], truncated, text], Silent())
    assert good.problem is None
    assert cut.image_hash == hashlib.sha256(truncated.read_bytes()).hexdigest()
    assert (cut.pixel_hash, cut.width, cut.height) == (None, None, None)
    assert cut.problem
    assert "not an image in a known format" in no_image.problem
    assert str(tmp_path) not in no_image.problem


def test_a_file_that_cannot_be_read_has_no_hash_and_says_why(tmp_path):
    (good,) = write_images(tmp_path, 1)
    folder = tmp_path / "scan.png"
    folder.mkdir()
    link = tmp_path / "gone.png"
    link.symlink_to(tmp_path / "nowhere")
    identities = hash_images([folder, good, link, tmp_path / "absent.png"], Silent())
    assert [identity.image_hash is None for identity in identities] == [True, False, True, True]
    assert [identity.problem for identity in identities] == [
        "a folder, not a regular file",
        None,
        "a link to a file that does not exist",
        "cannot be read: No such file or directory",
    ]


def test_all_missing_files_are_in_one_error(tmp_path):
    paths = write_images(tmp_path, 2)
    missing = [tmp_path / f"missing-{index:02}.png" for index in range(23)]
    with pytest.raises(InputError) as caught:
        require_files([*paths, *missing])
    message = str(caught.value)
    assert message.startswith("23 of 25 image files are missing")
    assert all(str(path) in message for path in missing[:20])
    assert str(missing[20]) not in message
    assert "and 3 more" in message


def test_what_cannot_be_read_is_not_missing(tmp_path):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    require_files([tmp_path / "loop.png", tmp_path / "pipe.png", tmp_path])
    assert is_absent(tmp_path / "loop.png" / "deeper") is False
    assert is_absent(tmp_path / ("x\0y"))


def test_at_least_one_core_is_usable():
    assert usable_cores() >= 1

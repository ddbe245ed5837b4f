"""A folder's image processor that would give other pixel values than medalign is refused, not ignored."""

import json
import shutil

import pytest
from medalign.errors import InputError
from medalign.student.loading.student_loading import load_student
from transformers import CLIPImageProcessor

NORMAL = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.3, 0.3, 0.3]}


@pytest.fixture
def folder(student_folder, tmp_path):
    return shutil.copytree(student_folder, tmp_path / "base")


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_normalize": False}, "do_normalize is false"),
        ({"do_rescale": False}, "do_rescale is false"),
        ({"rescale_factor": 1.0}, r"rescale_factor is 1\.0"),
        ({"rescale_factor": 1 / 127.5}, r"rescale_factor is 0\.0078"),
        ({"crop_size": {"height": 48, "width": 48}}, "crop_size is 48 x 48, but .* 24 x 24"),
        ({"crop_size": 48, "size": 24}, "crop_size is 48 x 48, but .* 24 x 24"),
        ({"size": {"shortest_edge": 48}, "crop_size": 24, "do_center_crop": False}, "size is 48 x 48, but .* 24 x 24"),
        ({"size": {"height": 48, "width": 48}}, "size is 48 x 48, but .* 24 x 24"),
        ({"size": {"height": 24, "width": 48}}, "size is 48 x 24, but .* 24 x 24"),
    ],
)
def test_processors_with_other_pixel_values_are_refused(folder, name, settings, message):
    values = NORMAL | settings
    (folder / name).write_text(json.dumps({"image_processor": values} if name.startswith("processor") else values))
    with pytest.raises(InputError, match=message) as caught:
        load_student(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_normalize": True, "rescale_factor": 1 / 255, "do_rescale": None},
        {"size": 24, "crop_size": 24},
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 24, "width": 24}},
        {"size": {"longest_edge": 99}},
        {"size": {"height": 24, "width": 24}, "do_center_crop": False},
    ],
)
def test_processors_with_the_same_pixel_values_are_accepted(folder, settings):
    (folder / "preprocessor_config.json").write_text(json.dumps(NORMAL | settings))
    assert load_student(folder).images.mean == (0.5, 0.5, 0.5)


def test_processors_that_transformers_writes_are_accepted(folder):
    CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    assert load_student(folder).images.size == 24

"""Regions of phantoms, of NIH boxes and of label images: what a manifest says of them and which pixels they are."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.errors import InputError
from medalign.pipeline.data.annotations.region_masks import region_pixels
from medalign.pipeline.data.annotations.region_questions import regions_named
from medalign.pipeline.data.importers import ImportOptions, import_nih_cxr
from medalign.pipeline.data.phantoms import draw_phantom
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.data.regions import Region, read_regions
from medalign.progress import Silent
from medalign.student.metrics.region_attention import region_coverage
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from PIL import Image


class Notes(Silent):
    def __init__(self):
        self.said = ""

    def note(self, text):
        self.said += text + "\n"


def nih_tree(folder, lines):
    """Images of 9 x 6 pixels and their label table."""
    (folder / "images").mkdir()
    for seed, (stem, _, _) in enumerate(lines):
        pixels = np.random.default_rng(seed).integers(0, 255, (6, 9), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{stem}.jpg")
    with (folder / "Data_Entry_2017.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Image Index", "Finding Labels", "Patient ID"])
        writer.writerows([f"{stem}.png", labels, patient] for stem, labels, patient in lines)
    return folder


def test_phantoms_name_their_lesions_and_organs(tmp_path):
    manifest = make_phantoms(tmp_path / "p", images=4, seed=3, progress=Silent()).manifest
    for index in range(4):
        phantom = draw_phantom(3, index)
        rows = manifest.frame.filter(manifest.frame["image"] == f"images/{index:05d}.png")
        (regions,) = {read_regions(cell) for cell in rows["regions"].to_list()}
        assert [region.name for region in regions] == ["lesion"] * bool(phantom.lesions) + list(phantom.organs)
        height, width = phantom.shape
        drawn = {"lesion": phantom.lesion_mask, **phantom.organs}
        for region in regions:
            pixels = region_pixels([region], manifest.root, width, height)
            np.testing.assert_array_equal(pixels.numpy(), drawn[region.name])


BOXES = (
    ("2_0.png", "Infiltrate", 512.0, 256.5, 256.0, 128.0),
    ("1_0.png", "Mass", 0, 0, 1024, 1024),
    ("2_0.png", "Nodule", 100, 100, 10, 10),
)


def write_boxes(folder, boxes, header=("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")):
    with (folder / "BBox_List_2017.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([*box, "", "", ""] for box in boxes)


def test_nih_boxes_are_regions_in_the_pixels_that_are_there(tmp_path):
    """The images of the tree are 9 x 6 pixels, the boxes are measured on 1024 x 1024."""
    tree = nih_tree(tmp_path, [("1_0", "Mass", "1"), ("2_0", "Infiltration|Nodule", "2"), ("3_0", "Hernia", "3")])
    write_boxes(tree, [*BOXES, ("9_9.png", "Mass", 1, 1, 1, 1)])
    notes = Notes()
    manifest = import_nih_cxr(tree, ImportOptions(), notes)
    found = {
        image.split("/")[-1]: [(region.name, region.box) for region in read_regions(cell)]
        for image, cell in manifest.frame.select("image", "regions").iter_rows()
    }
    assert found == {
        "1_0.jpg": [("Mass", (0, 0, 9, 6))],
        "2_0.jpg": [
            ("Infiltration", (4.5, 256.5 * 6 / 1024, 2.25, 0.75)),
            ("Nodule", (900 / 1024, 600 / 1024, 90 / 1024, 60 / 1024)),
        ],
        "3_0.jpg": [],
    }
    assert "1 image with boxes has no line in the label table" in notes.said


def test_nih_without_boxes_says_so_and_wrong_boxes_are_all_named(tmp_path):
    tree = nih_tree(tmp_path, [("1_0", "Mass", "1")])
    notes = Notes()
    assert import_nih_cxr(tree, ImportOptions(), notes).frame["regions"].to_list() == [[], []]
    assert "no box table" in notes.said
    write_boxes(
        tree, [("1_0.png", "Flu", 1, 1, 1, 1), ("1_0.png", "Mass", 1, "?", 1, 1), ("1_0.png", "Mass", 1, 1, 0, 1)]
    )
    with pytest.raises(InputError) as caught:
        import_nih_cxr(tree, ImportOptions(), Silent())
    for expected in (
        "line 2: unknown finding 'Flu'",
        "line 3: no valid x, y, width and height",
        "line 4: a box of 0.0 x 1.0",
    ):
        assert expected in str(caught.value)


@pytest.mark.skipif("MEDALIGN_REAL_DATA" not in os.environ, reason="MEDALIGN_REAL_DATA names no folder with nih_cxr/")
def test_the_boxes_of_nihs_starter_set_lie_in_its_half_size_images():
    manifest = import_nih_cxr(Path(os.environ["MEDALIGN_REAL_DATA"]) / "nih_cxr", ImportOptions(), Silent())
    boxed = manifest.images().join(manifest.frame.select("image", "regions").unique("image"), on="image")
    found = {image: read_regions(cell) for image, cell in boxed.select("image", "regions").iter_rows() if cell}
    assert len(found) == 12
    for (region,) in found.values():
        x, y, width, height = region.box
        assert 0 < x < x + width < 512
        assert 0 < y < y + height < 512
    (nodule,) = found["images_512/00008386_000.jpg"]
    assert nodule == Region(name="Nodule", box=(711.9238095 / 2, 357.5873016 / 2, 58.51428571 / 2, 47.67830688 / 2))


def label_image(path, values, mode="L"):
    image = Image.fromarray(np.array(values, dtype=np.uint8))
    if mode == "P":
        image.putpalette([value for label in range(256) for value in (255 - label, 7, 7)])
    image.convert(mode).save(path) if mode != "P" else image.save(path)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_one_file_with_several_labels_as_in_slake(tmp_path, mode):
    label_image(tmp_path / "mask.png", [[0, 1, 1, 2], [0, 1, 3, 3]], mode)
    liver, spleen = (Region(name=name, mask="mask.png", value=value) for name, value in (("liver", 1), ("spleen", 3)))
    everything = Region(name="organs", mask="mask.png")
    for regions, expected in (
        ([liver], [[0, 1, 1, 0], [0, 1, 0, 0]]),
        ([liver, spleen], [[0, 1, 1, 0], [0, 1, 1, 1]]),
        ([everything], [[0, 1, 1, 1], [0, 1, 1, 1]]),
    ):
        assert region_pixels(regions, tmp_path, 4, 2).tolist() == expected


def test_a_box_takes_parts_of_pixels_and_ends_at_the_image():
    box = Region(name="x", box=(0.5, -1.0, 2.0, 1.75))
    assert region_pixels([box], None, 4, 2).tolist() == [[0.375, 0.75, 0.375, 0], [0, 0, 0, 0]]
    beside = Region(name="x", box=(2.0, 0.0, 90.0, 1.0))
    assert region_pixels([box, beside], None, 4, 2).tolist() == [[0.375, 0.75, 1, 1], [0, 0, 0, 0]]


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    corner=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    part=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    grid=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_a_box_keeps_its_area_on_the_grid(size, corner, part, grid):
    width, height = size
    x, y = corner[0] * width, corner[1] * height
    wide, tall = part[0] * (width - x), part[1] * (height - y)
    pixels = region_pixels([Region(name="x", box=(x, y, wide, tall))], None, width, height)
    coverage = region_coverage(pixels, PatchGrid(*grid))
    assert float(coverage.mean()) == pytest.approx(wide * tall / max(size) ** 2, rel=1e-4, abs=1e-6)


def test_masks_that_do_not_fit_are_errors(tmp_path):
    label_image(tmp_path / "mask.png", [[0, 1, 1], [0, 1, 0]])
    Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3)).save(tmp_path / "color.png")
    (tmp_path / "text.png").write_text("no image")
    for name, width, expected in (
        ("mask.png", 4, r"mask\.png has 3x2 pixels, but its image has 4x2"),
        ("color.png", 3, r"is in color \(RGB\); a mask must have one channel, or equal channels"),
        ("none.png", 3, r"mask .*none\.png does not exist"),
        ("text.png", 3, r"mask .*text\.png is not an image in a format that Pillow reads"),
    ):
        with pytest.raises(InputError, match=expected):
            region_pixels([Region(name="x", mask=name)], tmp_path, width, 2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_equal_channels_are_one(tmp_path, mode):
    Image.fromarray(np.array([[0, 7, 56]], dtype=np.uint8)).convert(mode).save(tmp_path / "mask.png")
    assert region_pixels([Region(name="x", mask="mask.png", value=56)], tmp_path, 3, 1).tolist() == [[0, 0, 1]]


ORGANS = ("Liver", "Left Lung", "Right Lung", "Heart", "Lung Cancer", "lesion", "pleural_thickening")


@pytest.mark.parametrize(
    ("question", "answer", "named"),
    [
        ("Is the liver enlarged?", "No", {"Liver"}),
        ("Does the picture contain LIVERS?", "Yes", {"Liver"}),
        ("Is the left lung bigger than the heart?", "Yes", {"Left Lung", "Heart"}),
        ("Are the lungs clear?", "No", {"Left Lung", "Right Lung"}),
        ("Is there lung cancer?", "Yes", {"Lung Cancer"}),
        ("Which organ is largest?", "Right lung", {"Right Lung"}),
        ("Is there pleural thickening?", "yes", {"pleural_thickening"}),
        ("Where is the lesion?", "liver", {"lesion"}),
        ("Is it a slivery hearth?", None, set()),
        ("What modality is this?", "CT", set()),
    ],
)
def test_a_question_is_about_what_it_or_its_answer_names(question, answer, named):
    regions = [Region(name=name, box=(0, 0, 1, 1)) for name in ORGANS] + [Region(name="Heart", box=(1, 1, 1, 1))]
    found = regions_named(question, answer, regions)
    assert {region.name for region in found} == named
    assert sum(region.name == "Heart" for region in found) == (2 if "Heart" in named else 0)


def test_regions_of_a_mask_land_where_the_student_sees_them():
    """A wide image is padded above and below: a box over all of it covers the middle rows of the grid alone."""
    pixels = region_pixels([Region(name="all", box=(0, 0, 40, 20))], None, 40, 20)
    coverage = region_coverage(pixels, PatchGrid(4, 4)).reshape(4, 4)
    torch.testing.assert_close(coverage, torch.tensor([0.0, 1, 1, 0])[:, None].expand(4, 4))

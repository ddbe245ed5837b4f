"""Names of patches: regions, organs, and which patches are kept."""

import numpy as np
import pytest
from medalign.pipeline.data.manifest import Manifest, ManifestRow, Turn
from medalign.pipeline.data.regions import Region
from medalign.pipeline.inspection.cell_labels import CHOSEN, UNNAMED, choose_cells, label_cells, name_cells
from medalign.pipeline.inspection.inspected_images import inspected_images
from medalign.pipeline.inspection.probes.probe_tasks import answer_tasks, probe_families
from medalign.progress import Silent
from medalign.teacher_cache.geometry.patch_grid import PatchGrid

GRID = PatchGrid(4, 4)
COUNT = 24


def manifest(tmp_path, **columns):
    """One question per image, 40 x 40 pixels; `columns` are functions of the number of the image."""
    rows = [
        ManifestRow(
            image=f"{number}.png",
            image_hash=f"{number:064x}",
            pixel_hash=f"{number:064x}",
            width=40,
            height=40,
            question_id=f"q{number}",
            split="test",
            data_use="public",
            **{"question": "Is it?", "answer": "yes"} | {name: make(number) for name, make in columns.items()},
        )
        for number in range(COUNT)
    ]
    return Manifest.from_rows(rows, tmp_path, "made up")


def test_tokens_are_read_without_options_and_earlier_turns(tmp_path):
    choices = manifest(
        tmp_path, answer_type=lambda number: "choice", options=lambda number: ("yes", "no"),
        history=lambda number: (Turn("Is it a scan?", "yes"),), question=lambda number: None if number else "Is it?",
    )  # fmt: skip
    samples = inspected_images(choices, limit=2 * COUNT, shown=5, seed=0).samples
    assert len(samples) == COUNT
    assert {(sample.question, sample.history, len(sample.images)) for sample in samples} == {
        ("Describe the image.", (), 1)
    }


def test_the_smallest_region_that_covers_half_a_patch_names_it():
    names = ("background", "lesion", "lung")
    lung, lesion = np.array([1, 1, 0.5, 0.4, 0.05, 0]), np.array([0, 0.6, 0.2, 0.3, 0, 0])
    assert name_cells({"lung": lung, "lesion": lesion}, names, 6).tolist() == [2, 1, 2, UNNAMED, 0, 0]
    assert name_cells({}, names, 6).tolist() == [UNNAMED] * 6


def test_patches_are_drawn_evenly_over_the_names_of_an_image():
    labels = np.array([[0] * 12 + [1] * 2 + [UNNAMED] * 2, [2] * 16])
    chosen = choose_cells(labels, np.random.default_rng(0))
    assert chosen.shape == (2, CHOSEN)
    assert [len(set(row)) for row in chosen.tolist()] == [CHOSEN, CHOSEN]
    assert sorted(labels[0, chosen[0]].tolist()) == [0] * 10 + [1] * 2


def test_regions_name_patches(tmp_path):
    top = (Region(name="lung", box=(0, 0, 40, 20)),)
    found = inspected_images(
        manifest(tmp_path, regions=lambda number: top if number < 20 else ()), limit=COUNT, shown=5, seed=0
    )
    cells = label_cells(found, GRID, seed=0, progress=Silent())
    assert (cells.kind, cells.names) == ("region", ("background", "lung"))
    annotated = cells.labels[:20]
    assert (annotated == (cells.chosen[:20] < 8)).all()
    assert (cells.labels[20:] == UNNAMED).all()  # nobody said that nothing is there
    (family,) = probe_families(found, cells)
    assert (family.name, family.floor) == ("regions", "position alone")
    assert len(family.tasks[0].labels) == 20 * CHOSEN


def test_without_regions_the_organ_of_the_image_names_all_its_patches(tmp_path):
    found = inspected_images(
        manifest(tmp_path, organ=lambda number: ("chest", "head", None)[number % 3], modality=lambda number: "CT"),
        limit=COUNT, shown=5, seed=0,
    )  # fmt: skip
    cells = label_cells(found, GRID, seed=0, progress=Silent())
    assert (cells.kind, cells.names) == ("organ", ("chest", "head"))
    assert cells.labels[:, 0].tolist() == [0, 1, UNNAMED] * (COUNT // 3)
    bare = inspected_images(manifest(tmp_path), limit=COUNT, shown=5, seed=0)
    assert label_cells(bare, GRID, seed=0, progress=Silent()).kind is None


@pytest.mark.parametrize(
    ("answer", "classes"),
    [
        (lambda number: ("Yes.", "no")[number % 2], ("no", "yes")),
        (lambda number: "yes", None),  # one class
        (lambda number: str(number), None),  # too many, each too rare
        (lambda number: ("yes", "no")[number % 12 == 0], None),  # too few of one
    ],
)
def test_answers_are_probed_where_they_are_classes(tmp_path, answer, classes):
    found = inspected_images(manifest(tmp_path, answer=answer), limit=COUNT, shown=5, seed=0)
    tasks = answer_tasks(found)
    assert [task.classes for task in tasks] == ([] if classes is None else [classes])
    if tasks:
        assert tasks[0].labels.tolist() == [1, 0] * (COUNT // 2)

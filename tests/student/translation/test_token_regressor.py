"""The regression's loss and its data: against loops written from the equation."""

from collections import Counter

import pytest
import torch
from medalign.errors import InputError
from medalign.student.inputs.collation import SampleImage
from medalign.student.inputs.image_processing import StudentImages
from medalign.student.loading.student_loading import open_student
from medalign.student.translation.token_data import (
    MixedOrder,
    RandomFeatures,
    TokenFile,
    TokenSample,
    collate_tokens,
    read_image_pixels,
)
from medalign.student.translation.token_regressor import TokenRegressor
from medalign.student.translation.translation import Translation
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.images import image_hash
from students import write_images


def translation(cells=9, channels=5, width=64):
    return Translation(
        {
            "weight": torch.randn(channels, width),
            "at_cell": torch.randn(cells, width),
            "mean": torch.randn(channels),
            "scale": torch.rand(channels) + 0.5,
        }
    )


def test_both_losses_are_mean_squared_differences_in_units_of_the_variance(student_folder):
    student = open_student(student_folder, layers=(), rotation="none").model
    regressor, translate = TokenRegressor(student).eval(), translation()
    regressor.translate_with(translate, 2.5)
    pixels, features, old = torch.randn(3, 3, 24, 24), torch.randn(2, 9, 5), torch.randn(1, 9, 64)
    output = regressor(pixels, features, old)
    E, kept, tokens = features.double(), old.double(), student.image_tokens(pixels).detach().double()
    A, at_cell, mean, scale = (value.double() for _, value in translate.named_buffers())
    for image in range(3):
        total = 0.0  # in float64: summed one by one in float32, 576 squares have an error of 1e-5
        for cell in range(9):
            goal = kept[0, cell]
            if image < 2:
                standard = [(E[image, cell, c] - mean[c]) / scale[c] for c in range(5)]
                goal = at_cell[cell] + sum(x * A[c] for c, x in enumerate(standard))
            for channel in range(64):
                total += float(tokens[image, cell, channel] - goal[channel]) ** 2
        loss = output.loss_translation[image] if image < 2 else output.loss_keep[0]
        assert float(loss) == pytest.approx(total / (9 * 64) / 2.5, rel=1e-6)
    assert regressor(pixels[:2], features).loss_keep is None
    assert regressor(pixels[:1], None, old).loss_translation is None


def test_the_language_model_is_not_part_of_the_regressor(student_folder):
    regressor = TokenRegressor(open_student(student_folder, layers=(), rotation="none").model)
    regressor.translate_with(translation(), 1.0)
    parts = {name.split(".")[0] for name, _ in regressor.named_parameters()}
    assert parts == {"vision_tower", "multi_modal_projector"}
    assert not list(regressor.buffers()) or all("position_ids" in name for name, _ in regressor.named_buffers())


def test_an_order_has_each_kind_in_every_step_and_all_images_before_any_again():
    order = list(MixedOrder((5, 3), (2, 1), steps=10, seed=4))
    assert len(order) == len(MixedOrder((5, 3), (2, 1), steps=10, seed=4)) == 30
    for step in range(10):
        kinds = [index >= 5 for index in order[3 * step : 3 * step + 3]]
        assert kinds == [False, False, True]
    targets = [index for index in order if index < 5]
    assert [Counter(targets[start : start + 5]) for start in (0, 5)] == [Counter(range(5))] * 2
    assert order != list(MixedOrder((5, 3), (2, 1), steps=10, seed=5))
    assert order == list(MixedOrder((5, 3), (2, 1), steps=10, seed=4))


def test_random_features_are_those_of_each_cell_alone():
    source = RandomFeatures(grid=PatchGrid(3, 3), channels=4, seed=1)
    pixels = torch.randn(2, 3, 24, 24)
    features = source([], pixels)
    changed = pixels.clone()
    changed[0, :, 8:16, 16:24] += 1  # cell (1, 2)
    different = (source([], changed) - features).abs().sum(dim=2) > 1e-6
    assert different.nonzero().tolist() == [[0, 5]]
    assert torch.equal(features, RandomFeatures(grid=PatchGrid(3, 3), channels=4, seed=1)([], pixels))


def test_a_batch_has_targets_first():
    items = [TokenSample(pixel_values=torch.full((3, 2, 2), float(n))) for n in range(3)]
    anchor = TokenSample(pixel_values=items[0].pixel_values, old_tokens=torch.ones(1, 2))
    target = TokenSample(pixel_values=items[1].pixel_values, features=torch.ones(1, 3))
    batch = collate_tokens([anchor, target, anchor])
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert batch["features"].shape == (1, 1, 3)
    assert batch["old_tokens"].shape == (2, 1, 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tokens_are_read_as_they_were_written_and_a_cut_file_is_refused(tmp_path, dtype):
    tokens = torch.randn(4, 3, 2).to(getattr(torch, dtype))
    file = TokenFile(path=tmp_path / "tokens.bin", images=4, cells=3, width=2, dtype=dtype)
    file.path.write_bytes(tokens.view(torch.uint8).numpy().tobytes())
    assert torch.equal(file.read([2, 0]), tokens[[2, 0]])
    file.path.write_bytes(b"short")
    with pytest.raises(InputError, match="--resume to compute them again"):
        file.read([0])


def test_an_image_that_was_replaced_is_refused(tmp_path):
    first, second = write_images(tmp_path, [(24, 24), (24, 24)])
    images = StudentImages(size=24, grid=PatchGrid(3, 3), mean=(0.5,) * 3, std=(0.5,) * 3)
    known = SampleImage(path=first, image_hash=image_hash(first.read_bytes()))
    assert read_image_pixels(images, [known]).shape == (1, 3, 24, 24)
    first.write_bytes(second.read_bytes())
    with pytest.raises(InputError, match=r"'0\.png'"):
        read_image_pixels(images, [known])

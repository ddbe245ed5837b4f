"""Sink tokens, compared with loops over images and tokens."""

import pytest
import torch
from medalign.student.inputs.views import ImageLayout, View, square_layout
from medalign.student.metrics.attention_sinks import SINK_FACTOR, SINK_IMAGES, find_sinks, share_of_tokens
from medalign.student.metrics.region_attention import region_coverage, token_coverage
from medalign.teacher_cache.geometry.patch_grid import PatchGrid


def planted(seed, images=20, layers=3, tokens=25):
    """Random attention; in layer 1, token 4 is bright on every image, and token 7 on all but three."""
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(images, layers, tokens, generator=generator) + 0.2
    attention[:, 1, 4] = 20
    attention[3:, 1, 7] = 20
    return attention


@pytest.mark.parametrize("seed", range(3))
def test_sinks_equal_loops(seed):
    attention = planted(seed)
    sinks = find_sinks(attention)
    for layer in range(attention.shape[1]):
        for token in range(attention.shape[2]):
            bright = 0
            for image in attention[:, layer].tolist():
                bright += image[token] / sum(image) > SINK_FACTOR / len(image)
            assert sinks[layer, token].item() == (bright / len(attention) >= SINK_IMAGES)
    assert sinks.nonzero().tolist() == [[1, 4]], "bright on 17 of 20 images is not on 90 % of them"
    share = share_of_tokens(attention, sinks)
    assert share[:, 0].tolist() == [0] * len(attention)
    assert share[2, 1].item() == pytest.approx(20 / attention[2, 1].sum().item())


def test_uniform_and_scaled_attention():
    assert not find_sinks(torch.ones(12, 2, 9)).any()
    attention = planted(5)
    scale = torch.rand(len(attention), 3, 1) + 0.5
    assert torch.equal(find_sinks(attention * scale), find_sinks(attention))


def test_coverage_through_views_is_that_of_each_cell():
    """Two views of an image of 12 x 8 pixels, the second over its right half, with tokens in another order."""
    inside = torch.zeros(8, 12)
    inside[0:4, 6:12] = 1
    whole = View(rows=2, columns=3, box=(0.0, 0.0, 12.0, 8.0), tokens=(0, 1, 2, 3, 4, 5))
    right = View(rows=2, columns=1, box=(4.0, -2.0, 8.0, 12.0), tokens=(8, 7))
    covered = token_coverage(inside, ImageLayout(views=(whole, right), tokens=9))
    expected = torch.zeros(9)
    for view in (whole, right):
        for token, (x, y, width, height) in view.cells():
            pixels = [
                (row, column)
                for row in range(8)
                for column in range(12)
                if y <= row < y + height and x <= column < x + width
            ]
            expected[token] = sum(inside[place] for place in pixels) / (width * height)
    torch.testing.assert_close(covered, expected)
    assert covered[[1, 2, 6, 8]].tolist() == [0.5, 1.0, 0.0, 0.5]


@pytest.mark.parametrize("size", [(20, 33), (31, 17), (16, 16)])
def test_the_view_of_a_square_is_the_square(size):
    generator = torch.Generator().manual_seed(0)
    inside = (torch.rand(size, generator=generator) > 0.5).float()
    grid = PatchGrid(4, 4)
    layout = square_layout(size[1], size[0], grid)
    torch.testing.assert_close(token_coverage(inside, layout), region_coverage(inside, grid))

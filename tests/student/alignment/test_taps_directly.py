"""Attention with taps against softmax(q k / sqrt(d) + mask + bias) v in float64, query by query."""

import math

import pytest
import torch
from medalign.student.alignment.attention_rows import _summed_rows
from medalign.student.alignment.attention_taps import SeenAttention, _attention_with_taps, make_tappable, tapped
from medalign.student.inputs.spans import ImageSpans
from torch import nn

LENGTH, HEADS, GROUPS, SIZE = 6, 4, 2, 8


def inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, LENGTH, SIZE) for heads in (HEADS, HEADS // GROUPS, HEADS // GROUPS)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


class Layer(nn.Module):
    """What transformers' attention functions read from a layer."""

    is_causal, num_key_value_groups = True, GROUPS

    class config:
        _attn_implementation = "sdpa"


def slow(query, key, value, biases):
    """Causal attention, one query of one head at a time; `biases` have one row for each query, or for the last."""
    query, key, value = (tensor.double() for tensor in (query, key, value))
    out = torch.zeros(2, HEADS, LENGTH, SIZE, dtype=torch.float64)
    for sample in range(2):
        for head in range(HEADS):
            for row in range(LENGTH):
                keys = slice(0, row + 1)
                scores = key[sample, head // GROUPS, keys] @ query[sample, head, row] / math.sqrt(SIZE)
                for bias in biases:
                    if bias.shape[2] == LENGTH or row == LENGTH - 1:
                        full = bias.double().expand(2, HEADS, -1, -1)
                        scores = scores + full[sample, head, row if bias.shape[2] == LENGTH else 0, keys]
                out[sample, head, row] = scores.softmax(dim=0) @ value[sample, head // GROUPS, keys]
    return out.transpose(1, 2)


def run(tensors, biases, scaling=SIZE**-0.5):
    layer, causal = Layer(), torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()[None, None]
    make_tappable(layer)
    taps = [lambda _, bias=bias: bias for bias in biases]
    with tapped([layer] * len(taps), taps):
        return _attention_with_taps(layer, *tensors, causal.expand(2, -1, -1, -1), scaling=scaling)[0]


def bias(rows, samples=2, heads=HEADS):
    return torch.randn(samples, heads, rows, LENGTH, generator=torch.Generator().manual_seed(rows))


CASES = {
    "none": [],
    "each query": [bias(LENGTH)],
    "last query": [bias(1, samples=1)],
    "two of each": [bias(LENGTH), bias(1), bias(LENGTH, heads=1), bias(1, heads=1)],
}


@pytest.mark.parametrize("case", CASES)
def test_biases_are_added_to_the_scores(case):
    tensors = inputs()
    torch.testing.assert_close(run(tensors, CASES[case]).double(), slow(*tensors, CASES[case]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_float32_biases_of_half_precision_layers(case):
    tensors = inputs(torch.bfloat16)
    found = run(tensors, CASES[case])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), slow(*tensors, CASES[case]), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("scaling", [None, 0.7])
def test_taps_see_the_scaling_of_the_layer(scaling):
    """Without one, a layer divides by the square root of its head's size."""
    query, key, value = inputs()
    layer, seen = Layer(), []
    make_tappable(layer)
    with tapped([layer], [seen.append]):
        _attention_with_taps(layer, query, key, value, None, scaling=scaling)
    assert seen[0].scaling == pytest.approx(0.7 if scaling else 1 / math.sqrt(SIZE))
    assert seen[0].mask is None


def test_scores_of_half_precision_queries_are_scaled_in_float32():
    query, key, value = inputs(torch.bfloat16)
    seen = SeenAttention(query=query, key=key, value=value, mask=None, scaling=0.3)
    for row in (0, 3, -1):
        scores = seen.scores(row)
        assert scores.dtype == torch.float32
        for head in range(HEADS):
            products = (query[:, head, row, None] @ key[:, head // GROUPS].transpose(1, 2))[:, 0].float()
            torch.testing.assert_close(scores[:, head], products * 0.3, rtol=1e-6, atol=1e-6)


def test_columns_of_a_mask_beyond_the_keys_do_not_count():
    """A mask for a cache of fixed size is longer than the keys so far."""
    query, key, _ = inputs()
    images = ImageSpans(sample=torch.tensor([0, 1]), positions=torch.tensor([[1, 2], [0, 1]]))
    rows, valid = torch.tensor([[3, 4], [3, 3]]), torch.tensor([[True, True], [True, False]])
    mask = torch.ones(LENGTH, LENGTH + 5, dtype=torch.bool).tril()[None, None]
    found = _summed_rows(query, key, mask, 0.5, images, rows, valid)
    torch.testing.assert_close(found, _summed_rows(query, key, None, 0.5, images, rows, valid))


@pytest.mark.parametrize("row", [None, 0, 3])
def test_weights_of_a_query_are_zero_where_its_mask_forbids(row):
    """The softmax over the allowed keys alone; by default of the last query."""
    query, key, value = inputs()
    mask = torch.rand(2, 1, LENGTH, LENGTH + 3, generator=torch.Generator().manual_seed(5)) < 0.5
    mask[..., 0] = True
    seen = SeenAttention(query=query, key=key, value=value, mask=mask, scaling=0.3)
    found = seen.weights() if row is None else seen.weights(row=row)
    place = LENGTH - 1 if row is None else row
    for sample in range(2):
        allowed = mask[sample, 0, place, :LENGTH]
        for head in range(HEADS):
            scores = 0.3 * key[sample, head // GROUPS].double() @ query[sample, head, place].double()
            expected = torch.zeros(LENGTH, dtype=torch.float64)
            expected[allowed] = scores[allowed].softmax(dim=0)
            torch.testing.assert_close(found[sample, head].double(), expected, atol=1e-6, rtol=1e-5)

"""Region maps of a question's images."""

import torch
from medalign.student.inputs.region_maps import RegionMaps


def test_only_the_first_image_of_a_question_has_regions():
    maps = RegionMaps(maps=torch.tensor([[0.0, 0.5], [1.0, 0.0]]), of_question={"a": 1})
    assert maps.of("a", 2).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert maps.of("b", 2).tolist() == [[0.0, 0.0]] * 2

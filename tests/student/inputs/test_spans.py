"""Image and question spans in batches of different shapes."""

import pytest
import torch
from medalign.errors import InputError
from medalign.student.inputs.spans import IGNORED_LABEL, find_images, question_rows

IMG, PAD, PATCHES = 9, 0, 3


def batch(*rows: list[int], left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(map(len, rows))
    padding = [[PAD] * (length - len(row)) for row in rows]
    full = [p + r if left else r + p for p, r in zip(padding, rows, strict=True)]
    ids = torch.tensor(full)
    return ids, (ids != PAD).long()


@pytest.mark.parametrize("left", [False, True])
def test_mixed_batch_with_several_images_and_text_only(left):
    one = [1, IMG, IMG, IMG, 5, 6, 7, 8, 2]
    adjacent = [1, IMG, IMG, IMG, IMG, IMG, IMG, 5, 8, 2]
    text = [1, 4, 5, 2]
    apart = [IMG, IMG, IMG, 5, IMG, IMG, IMG, 6, 8]
    answers = {0: [8, 2], 1: [8, 2], 2: [2], 3: [8]}
    ids, mask = batch(one, adjacent, text, apart, left=left)
    labels = torch.full_like(ids, IGNORED_LABEL)
    for sample, answer in answers.items():
        end = ids.shape[1] if left else int(mask[sample].sum())
        labels[sample, end - len(answer) : end] = torch.tensor(answer)
    images = find_images(ids, IMG, PATCHES)
    assert images.sample.tolist() == [0, 1, 1, 3, 3]
    assert (ids[images.sample[:, None], images.positions] == IMG).all()
    rows = question_rows(ids, mask, labels, images, IMG)
    asked = [ids[s][r].tolist() for s, r in zip(images.sample, rows, strict=True)]
    assert asked == [[5, 6, 7], [5], [5], [5, 6], [6]]


def test_without_labels_the_question_extends_to_the_end_of_the_prompt():
    ids, mask = batch([1, IMG, IMG, IMG, 5, 6], [1, IMG, IMG, IMG, 5], left=True)
    images = find_images(ids, IMG, PATCHES)
    rows = question_rows(ids, mask, None, images, IMG)
    assert rows.sum(dim=1).tolist() == [2, 1]


def test_a_truncated_image_is_reported():
    ids, _ = batch([1, IMG, IMG, IMG, 5], [1, IMG, IMG])
    with pytest.raises(InputError, match=r"sample 1 .* 2 image tokens, not a multiple of 3"):
        find_images(ids, IMG, PATCHES)


def test_an_image_after_the_question_is_refused():
    ids, mask = batch([1, 5, IMG, IMG, IMG, 8])
    labels = torch.tensor([[IGNORED_LABEL] * 5 + [8]])
    with pytest.raises(InputError, match="no question token after it"):
        question_rows(ids, mask, labels, find_images(ids, IMG, PATCHES), IMG)

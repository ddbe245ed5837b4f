"""A batch reads its rows from the store in one call, and equals its single samples."""

from dataclasses import fields

import pytest
import torch
from medalign.student.inputs.alignment_dataset import AlignmentDataset
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import open_store
from stores import write_store
from students import mixed_samples, trainable


@pytest.mark.parametrize("profile", ["float16", "gram16"])
def test_a_batch_equals_its_single_samples(student_folder, tmp_path, monkeypatch, profile):
    samples = mixed_samples(tmp_path)  # one image, none, two images, one image
    hashes = [image.image_hash for sample in samples for image in sample.images]
    store = open_store(write_store(tmp_path / "s.zarr", range(4), hashes=hashes, grid=PatchGrid(3, 3), profile=profile))
    dataset = AlignmentDataset(trainable(student_folder), samples, store, max_length=512)
    one_by_one = [dataset[index] for index in (2, 1, 0, 3, 2)]
    calls, read = [], type(store).read
    monkeypatch.setattr(type(store), "read", lambda *arguments: calls.append(arguments) or read(*arguments))
    loader = torch.utils.data.DataLoader(dataset, sampler=[2, 1, 0, 3, 2], batch_size=5, collate_fn=list)
    (batch,) = loader
    assert len(calls) == 1
    for together, alone in zip(batch, one_by_one, strict=True):
        for field in fields(alone):
            ours, theirs = getattr(together, field.name), getattr(alone, field.name)
            assert (ours is None and theirs is None) or torch.equal(ours, theirs), field.name
    assert batch[1].E_a is None
    assert batch[0].E_a is not None
    assert len(batch[0].E_a) == 2
    assert (batch[0].E_v is None) == (profile == "gram16")

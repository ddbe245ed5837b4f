"""Spawned DataLoader workers (macOS; forkserver since Python 3.14) get no copy of the model."""

import io
import multiprocessing
import pickle

import pytest
import torch
from medalign.student.inputs.alignment_dataset import AlignmentDataset, FilledDataset
from medalign.student.inputs.collation import Collator
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import open_store
from stores import write_store
from students import mixed_samples, trainable
from torch.utils.data import DataLoader


@pytest.fixture(scope="module")
def data(student_folder, tmp_path_factory) -> AlignmentDataset:
    folder = tmp_path_factory.mktemp("workers")
    samples = mixed_samples(folder / "images")
    hashes = [image.image_hash for sample in samples for image in sample.images]
    store = write_store(folder / "store.zarr", range(len(hashes)), hashes=hashes, grid=PatchGrid(3, 3))
    return AlignmentDataset(trainable(student_folder), samples, open_store(str(store)), max_length=800)


def test_the_data_set_pickles_without_tensors_of_the_model(data):
    """Its pickle contains the tokenizer and little else: paths, hashes and texts of four samples."""
    sizes = []

    class Watching(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, torch.nn.Module | torch.Tensor):
                sizes.append(type(value).__name__)

    written = io.BytesIO()
    Watching(written).dump(FilledDataset(data, multiple=2))
    assert sizes == []
    tokenizer = len(pickle.dumps(data._student.tokenizer))
    assert tokenizer < len(written.getvalue()) < tokenizer + 20_000


def test_a_spawned_worker_reads_the_same_batches(data):
    collate = Collator(pad_token_id=0)
    options = {"batch_size": 4, "num_workers": 1, "multiprocessing_context": multiprocessing.get_context("spawn")}
    (batch,) = DataLoader(FilledDataset(data, multiple=1), collate_fn=collate, **options)
    expected = collate(data.__getitems__(range(4)))
    assert batch.keys() == expected.keys() >= {"E_v", "E_a", "pixel_values"}
    for name, value in expected.items():
        assert torch.equal(batch[name], value), name

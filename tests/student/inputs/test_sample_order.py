"""The order of samples: each once, a function of seed and epoch only, with similar lengths together."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from medalign.progress import Silent
from medalign.student.inputs.alignment_dataset import AlignmentDataset
from medalign.student.inputs.sample_order import EpochOrder
from medalign.student.loading.student_loading import open_student
from medalign.student.training.training_run import train_student
from students import LAYER, OPTIONS, adapter_record, mixed_samples, sample, trainable


def order(lengths, *, step=4, grouped=True, multiple=1, seed=0, epoch=0):
    made = EpochOrder(
        len(lengths), lengths=lengths if grouped else None, step_samples=step, multiple=multiple, seed=seed
    )
    made.set_epoch(epoch)
    return list(made)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=200), st.integers(1, 9), st.integers(1, 5), st.integers(0, 9))
def test_every_sample_occurs_once_and_padding_samples_are_last(lengths, step, multiple, epoch):
    made = order(lengths, step=step, multiple=multiple, epoch=epoch)
    real = len(lengths)
    assert sorted(made[:real]) == list(range(real))
    assert made[real:] == list(range(real, len(made)))
    assert len(made) % multiple == 0
    assert len(made) - real < multiple
    assert made == order(lengths, step=step, multiple=multiple, epoch=epoch)


def padded(made, lengths, step):
    """Share of padding when every step is padded to its longest sample."""
    steps = [made[i : i + step] for i in range(0, len(made), step)]
    total = sum(len(s) * max(lengths[index] for index in s) for s in steps)
    return 1 - sum(lengths) / total


def test_grouping_by_length_reduces_padding():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(30, 900, (640,), generator=generator).tolist()
    random, grouped = (padded(order(lengths, grouped=how), lengths, 4) for how in (False, True))
    assert random > 0.3
    assert grouped < 0.05


def test_orders_differ_between_epochs_and_seeds_and_the_longest_step_is_first():
    lengths = [10 + i % 37 for i in range(200)]
    made = {tuple(order(lengths, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}
    assert len(made) == 9
    for one in made:
        assert max(lengths[index] for index in one[:4]) == max(lengths)


class Seen(AlignmentDataset):
    """Records the samples of every batch."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.batches = []

    def __getitems__(self, indices):
        self.batches.append(list(indices))
        return super().__getitems__(indices)


def long_and_short():
    """48 questions, every second one much longer."""
    return [sample(f"Is it number {i}?" + " Really?" * (20 * (i % 2)), "yes") for i in range(48)]


def test_training_groups_samples_by_length(student_folder, tmp_path):
    """In the Trainer's batches, not only the sampler's: there is less padding than without grouping."""
    shares = {}
    for grouped in (False, True):
        student = trainable(student_folder)
        data = Seen(student, long_and_short(), None, max_length=800)
        assert data.lengths == [len(data[i].input_ids) for i in range(len(data))]
        data.batches.clear()
        options = replace(OPTIONS, group_by_length=grouped, per_device_train_batch_size=4, max_steps=12, save_steps=20)
        train_student(student, adapter_record(student), options, data, None, tmp_path / str(grouped), Silent())
        assert len(data.batches) == 12
        shares[grouped] = padded([index for batch in data.batches for index in batch], data.lengths, 4)
    assert shares[True] < 0.5 * shares[False]


def test_lengths_are_computed_without_reading_images(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="none", template="plain")
    (item, *_) = mixed_samples(tmp_path)
    data = AlignmentDataset(student, [item, sample("Why?", "because")], None, max_length=800)
    for image in item.images:
        image.path.unlink()
    assert data.lengths[0] > data.lengths[1] > 0

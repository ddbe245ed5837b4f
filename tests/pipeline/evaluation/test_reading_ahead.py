"""Images of the next batch are read while a batch is asked, one batch ahead, in order, with the same errors."""

import threading
from pathlib import Path

import pytest
import torch
from medalign.errors import InputError
from medalign.pipeline.evaluation.batches import batch_work as module
from medalign.pipeline.evaluation.batches.batch_work import BatchJob, BatchOrder, Cell, StudentRecipe, work_through
from medalign.student.inputs.collation import Sample


class Asked:
    """Instead of a decoding: waits until the next batch's images were asked for, and notes what was read by then."""

    max_new_tokens = 0

    def __init__(self, begun):
        self.begun, self.seen = begun, []

    def __call__(self, student, samples, pixels):
        following = int(samples[-1].question_id) + 1
        if following < 6:
            assert self.begun[following].wait(20), "nothing is read while a batch is asked"
        self.seen.append(sum(event.is_set() for event in self.begun))
        return [float(read().sum()) for read in pixels]


class Device:
    lora_kept = None

    class model:
        device = torch.device("cpu")


@pytest.fixture
def order(monkeypatch):
    begun = [threading.Event() for _ in range(6)]
    samples = tuple(Sample(question_id=str(n), question="?", answer="") for n in range(6))

    def read(student, sample):
        begun[int(sample.question_id)].set()
        if sample.question_id == "4":
            raise InputError("question 4: cannot read it")
        return torch.tensor([float(sample.question_id)])

    monkeypatch.setattr(module, "read_shown", read)
    monkeypatch.setattr(module, "check_length", lambda *_: None)
    monkeypatch.setattr(module, "encode_text", lambda *_, **__: ([], []))
    asked = Asked(begun)
    cells = (Cell(student=0, questions="q", ask=asked),)
    return asked, BatchOrder(
        students=(StudentRecipe(folder=Path("s")),), cells=cells, samples={"q": samples}, batch_size=2
    )


def test_the_next_batch_alone_is_read_while_one_is_asked(order):
    asked, given = order
    told = []
    with pytest.raises(InputError, match="question 4: cannot read it"):
        work_through(given, given.jobs(), lambda _: Device, told.append)
    assert [result.job for result in told] == [BatchJob(0, 0), BatchJob(0, 1)], "batches before the error are kept"
    assert [list(result.results) for result in told] == [[0, 1], [2, 3]]
    assert asked.seen[0] <= 4, "one batch ahead, not more"


def test_a_student_is_loaded_once_for_all_its_cells(order):
    asked, given = order
    asked.begun = [threading.Event() for _ in range(6)]
    for event in asked.begun:
        event.set()
    cells = tuple(Cell(student=student, questions="q", ask=asked) for student in (0, 0, 1))
    many = BatchOrder(students=given.students * 2, cells=cells, samples=given.samples, batch_size=2)
    loaded = []
    wanted = [job for job in many.jobs() if job.batch < 2]
    work_through(many, wanted, lambda number: loaded.append(number) or Device, lambda _: None)
    assert loaded == [0, 1]

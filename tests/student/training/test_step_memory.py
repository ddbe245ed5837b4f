"""The memory estimate compared with what autograd keeps in a step."""

from dataclasses import replace

import pytest
import torch
from medalign.student.adapters.trainable import TrainableParts, make_trainable
from medalign.student.inputs.collation import Collator, EncodedSample
from medalign.student.loading.student_loading import open_student
from medalign.student.training.step_memory import StepShape, estimate_memory
from students import LAYER

FACTOR = 1.4
"""Maximum relative error of the estimated activations."""
PARTS = TrainableParts(rank=4, alpha=8, dropout=0.0)
TOKENS, ANSWER, SAMPLES = 120, 8, 3


def batch_of(student):
    generator = torch.Generator().manual_seed(0)
    patches, size = student.model.patches, student.images.size
    items = []
    for _ in range(SAMPLES):
        ids = torch.randint(10, 200, (TOKENS,), generator=generator)
        ids[4 : 4 + patches] = student.model.image_token_id
        labels = torch.full_like(ids, -100)
        labels[-ANSWER:] = ids[-ANSWER:]
        items.append(
            EncodedSample(
                input_ids=ids,
                labels=labels,
                pixel_values=torch.randn(1, 3, size, size, generator=generator),
                E_v=torch.randn(1, patches, 5, generator=generator),
                E_a=torch.rand(1, patches, generator=generator),
            )
        )
    return Collator(pad_token_id=0)(items)


def kept_bytes(student) -> int:
    """Bytes of all storages that autograd saves in a forward pass, without parameters, each counted once."""
    known = {p.untyped_storage().data_ptr() for p in [*student.model.parameters(), *student.model.buffers()]}
    batch = batch_of(student)
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = student.model.train()(**batch)
        (output.loss_lm.sum() + output.loss_vis.sum() + output.loss_att.sum()).backward()
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize(
    "change",
    [{}, {"dropout": 0.1}, {"projector": "full", "vision_tower": "full"}],
    ids=["lora", "dropout", "tower"],
)
def test_activations_are_close_to_those_of_a_real_step(student_folder, change):
    student = open_student(student_folder, layers=[LAYER], rotation="full")
    parts = replace(PARTS, **change)
    make_trainable(student.model, parts, base=student.base)
    shape = StepShape(samples=SAMPLES, tokens=TOKENS, answer_tokens=ANSWER, images=SAMPLES)
    estimate = estimate_memory(student.model, parts, shape, precision="float32", checkpointing=None, mask_bytes=4)
    measured = kept_bytes(student)
    assert measured / FACTOR < estimate.activations < measured * FACTOR, (estimate.activations, measured)


def test_weights_gradients_and_optimizer_states_are_exact(student_folder):
    student = open_student(student_folder, layers=[LAYER], rotation="full")
    make_trainable(student.model, PARTS, base=student.base)
    shape = StepShape(samples=SAMPLES, tokens=TOKENS, answer_tokens=ANSWER, images=SAMPLES)
    estimate = estimate_memory(student.model, PARTS, shape, precision="float32", checkpointing=None)
    trained = [p for p in student.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    output = student.model.train()(**batch_of(student))
    (output.loss_lm.sum() + output.loss_vis.sum()).backward()
    optimizer.step()
    assert estimate.weights == sum(p.nbytes for p in student.model.parameters())
    assert estimate.gradients == sum(p.grad.nbytes for p in trained)
    states = sum(value.nbytes for p in trained for key, value in optimizer.state[p].items() if key != "step")
    assert estimate.optimizer == states


def test_gradient_checkpointing_reduces_activations(student_folder):
    student = open_student(student_folder, layers=[LAYER], rotation="full")
    make_trainable(student.model, PARTS, base=student.base)
    shape = StepShape(samples=SAMPLES, tokens=TOKENS, answer_tokens=ANSWER, images=SAMPLES)
    plain, less = (
        estimate_memory(student.model, PARTS, shape, precision="float32", checkpointing=kind).activations
        for kind in (None, "non_reentrant")
    )
    assert less < 0.75 * plain

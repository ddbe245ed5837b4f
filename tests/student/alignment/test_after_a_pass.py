"""W acts on the image tokens of a pass, and on nothing that runs after it; every layer can be aligned."""

from types import SimpleNamespace

import pytest
import torch
from medalign.student.alignment import aligned_student
from medalign.student.alignment.aligned_student import AlignedStudent
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.loading.student_loading import open_student
from students import LAYER, mixed_samples


@pytest.fixture
def samples(tmp_path):
    return mixed_samples(tmp_path)


def rotated(folder, layer=LAYER, rotation="full"):
    student = open_student(folder, layers=[layer], rotation=rotation)
    torch.nn.init.normal_(student.model.rotations[layer].weight)
    return student


def batch_of(student, samples):
    return Collator(pad_token_id=0)([encode_sample(student, sample, with_answer=True) for sample in samples])


def hidden_alone(student):
    """What the language model makes of fixed inputs that are not part of any pass."""
    width = student.model.config.text_config.hidden_size
    inputs = torch.randn(4, 40, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return student.model.stock.model.language_model(inputs_embeds=inputs).last_hidden_state


@pytest.mark.parametrize("fails", [False, True])
def test_a_pass_ends_also_where_it_raises(student_folder, samples, fails):
    student = rotated(student_folder)
    before = hidden_alone(student)
    batch = batch_of(student, samples)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}

    def broken(*_: object) -> None:
        raise ArithmeticError

    hook = student.model.decoder_layers[-1].register_forward_hook(broken) if fails else None
    if hook is None:
        student.model.stock(**inputs)
    else:
        with pytest.raises(ArithmeticError):
            student.model.stock(**inputs)
        hook.remove()
    assert torch.equal(hidden_alone(student), before)


@pytest.mark.parametrize("layer", [0, 3])
def test_the_first_and_the_last_layer_can_be_aligned(student_folder, samples, layer):
    student = rotated(student_folder, layer)
    (seen,) = student.model(**batch_of(student, samples[:1])).layers
    assert seen.layer == layer
    assert seen.attention.gt(0).all()


def test_w_has_a_zero_gradient_where_only_the_answer_is_learned(student_folder, samples):
    """In `train_only` mode no answer depends on W, but processes that share gradients expect one from every step."""
    student = rotated(student_folder, rotation="train_only")
    student.model.train()
    student.model(**batch_of(student, samples)).loss_lm.sum().backward()
    gradient = student.model.rotations[LAYER].weight.grad
    assert gradient is not None
    assert not gradient.any()


ROPES = [
    (None, 100),
    ({"rope_type": "default"}, 100),
    ({"rope_type": "llama3", "factor": 8.0}, 100),
    ({"rope_type": "linear", "factor": 4.0}, 400),
    ({"rope_type": "dynamic", "factor": 2.5}, 250),
    ({"rope_type": "linear"}, 100),
    ({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 40}, 320),
    ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 10}, 100),
    ({"rope_type": "yarn", "original_max_position_embeddings": 140}, 140),
    ({"rope_type": "yarn", "factor": 8.0}, 100),
]


@pytest.mark.parametrize(("rope", "expected"), ROPES)
def test_positions_by_kind_of_rope(rope, expected):
    """Only for linear and dynamic scaling does config.json give the positions before scaling."""
    text = SimpleNamespace(max_position_embeddings=100, rope_parameters=rope)
    student = SimpleNamespace(config=SimpleNamespace(text_config=text))
    assert AlignedStudent.max_positions.fget(student) == expected


def test_a_tower_with_one_trained_parameter_is_trained(student_folder):
    model = open_student(student_folder, layers=[LAYER], rotation="none").model
    tower = model.stock.model.vision_tower.requires_grad_(False)
    assert not model.train().stock.model.vision_tower.training
    next(tower.parameters()).requires_grad_(True)
    assert model.train().stock.model.vision_tower.training


@pytest.mark.parametrize("kind", ["reentrant", "non_reentrant"])
def test_checkpointing_leaves_out_the_aligned_layers(kind, monkeypatch):
    found = []
    monkeypatch.setattr(aligned_student, "checkpoint_decoder", lambda decoder, **options: found.append(options))
    points = [SimpleNamespace(layer=2), SimpleNamespace(layer=5)]
    student = SimpleNamespace(llava=SimpleNamespace(get_decoder=object), points=points)
    AlignedStudent.checkpoint_gradients(student, kind)
    assert found == [{"reentrant": kind == "reentrant", "except_layers": [2, 5]}]

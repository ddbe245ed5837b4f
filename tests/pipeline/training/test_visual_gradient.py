"""Where the gradient of L_vis flows, against two backward passes."""

from pathlib import Path

import pytest
import torch
from labs import lab_settings, make_lab, plan_with_weights
from medalign.errors import SettingsError
from medalign.pipeline.training import train
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.settings_loading import settings_of
from medalign.progress import Silent
from medalign.student.inputs.collation import AlignmentCollator
from torch.optim.optimizer import register_optimizer_step_pre_hook

PARTS = {"lora": "language_model", "rotation": "aligned", "projector": "multi_modal_projector", "tower": "vision_tower"}
"""What the names of each part's parameters contain."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    return make_lab(tmp_path_factory.mktemp("lab"))


def values_with(lab, named, trainable=None, **training):
    one_step = {"max_steps": 1, "max_grad_norm": None, "per_device_train_batch_size": 9}
    values = lab_settings(lab, **one_step | training)
    values["alignment"] |= {"visual_gradient": named, "layer": [1, 2], "alpha": 3.0}
    values["lora"]["lora_dropout"] = 0.0
    return values | {"trainable": trainable or {"projector": "full", "vision_tower": "lora"}}


@pytest.fixture(scope="module")
def separate(lab) -> dict[str, dict[str, torch.Tensor]]:
    """Gradients of all samples at once, by two backward passes: of L_LLM + beta L_att, and of alpha L_vis."""
    plan = plan_with_weights(Settings.model_validate(values_with(lab, "all")), scale=0.05)
    model = plan.student.model.train()
    batch = AlignmentCollator.of(plan.student)(plan.train.__getitems__(range(len(plan.samples))))
    found = {}
    for term in ("others", "visual"):
        model.zero_grad()
        output = model(**batch)
        if term == "visual":
            loss = 3.0 * output.loss_vis.mean()
        else:
            loss = output.loss_lm.sum() / output.answer_tokens.sum() + output.loss_att.mean()
        loss.backward()
        found[term] = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found


@pytest.mark.parametrize(
    ("named", "training"),
    [
        (["rotation"], {}),
        (["lora"], {"gradient_checkpointing": "non_reentrant"}),
        (["projector", "tower"], {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 6}),
    ],
)
def test_only_the_named_parts_learn_from_L_vis(lab, tmp_path, monkeypatch, separate, named, training):
    visual, expected = separate["visual"], {}
    for name, gradient in separate["others"].items():
        reached = any(PARTS[part] in name.split(".") for part in named)
        expected[name] = gradient + visual.get(name, torch.zeros(())) if reached else gradient
    plans, gradients = [], {}
    monkeypatch.setattr(
        train, "plan_training", lambda settings: plans.append(plan_with_weights(settings, scale=0.05)) or plans[0]
    )

    class Enough(Exception):
        """Nothing after the gradients of the first step is needed."""

    def keep(optimizer, args, kwargs):
        model = plans[0].student.model
        gradients.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        raise Enough

    handle = register_optimizer_step_pre_hook(keep)
    try:
        with pytest.raises(Enough):
            train.run_training(Settings.model_validate(values_with(lab, named, **training)), tmp_path / "run", Silent())
    finally:
        handle.remove()
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-5)
    for part in PARTS.values():  # each part would learn from L_vis, so the comparison can fail
        assert max(float(g.abs().max()) for name, g in visual.items() if part in name.split(".")) > 1e-4
    assert plans[0].summary()["visual_gradient"] == f"{', '.join(named)}, by a second backward pass"
    assert plans[0].memory.gradients > 4 * sum(plans[0].trainable.values())


def test_a_set_of_all_trained_parts_is_all(lab):
    settings = Settings.model_validate(values_with(lab, ["rotation", "lora"], {"language_model": "lora"}))
    assert not settings.restricts_visual_gradient
    assert plan_training(settings).summary()["visual_gradient"] == "rotation, lora"


@pytest.mark.parametrize(
    ("named", "alignment", "training", "problem"),
    [
        ([], {}, {}, "needs all, or a list of some of lora, rotation, projector, tower"),
        (["W"], {}, {}, "needs all, or a list of some of lora"),
        (["lora", "lora"], {}, {}, "names a part twice"),
        (["rotation"], {"rotation": "none"}, {}, "visual_gradient names rotation, which this run does not train"),
        (["lora"], {"rotation": "train_only"}, {}, "rotation is train_only, so that W would learn from nothing"),
        (["lora"], {}, {"sharding": "fsdp2"}, "needs whole parameters"),
        (["lora"], {}, {"gradient_checkpointing": "reentrant"}, "set it to non_reentrant"),
    ],
)
def test_what_is_not_exact_is_refused(lab, named, alignment, training, problem):
    values = values_with(lab, named, **training)
    values["alignment"] |= alignment
    with pytest.raises(SettingsError, match=problem):
        settings_of(values)

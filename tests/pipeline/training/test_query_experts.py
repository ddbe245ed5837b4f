"""MoE-Q: experts on the queries of an aligned layer, from the settings to the answers."""

import shutil
from dataclasses import replace

import pytest
import torch
from labs import lab_settings, make_lab
from medalign.errors import InputError, SettingsError
from medalign.pipeline.attention.attend import AttendRequest, run_attend
from medalign.pipeline.model_folders import export_student
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.settings_loading import settings_of
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import ADAPTER_RECORD, read_adapter_record
from medalign.student.alignment.query_experts import QueryExperts
from medalign.student.decoding.generation import start_run
from medalign.student.inputs.collation import AlignmentCollator
from medalign.student.loading.student_loading import load_student
from students import LAYER

EXPERTS = "query_experts.safetensors"


def settings_with(lab, **alignment):
    values = lab_settings(lab, max_steps=3, save_steps=2)
    values["alignment"] |= {"query_experts": True} | alignment
    return Settings.model_validate(values)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = make_lab(tmp_path_factory.mktemp("lab"))
    run_training(settings_with(folder), folder / "adapter", Silent())
    return folder


@pytest.fixture
def plan(lab):
    """A student whose experts change its queries."""
    plan = plan_training(settings_with(lab))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for experts in plan.student.model.query_experts.values():
            experts.B.copy_(torch.randn(experts.B.shape, generator=generator))
    return plan


def slow_addition(experts, x, end):
    """For every token of a sample, sum over experts of g (8 / 16) B A x, with the router at position `end`."""
    scores = [float(row @ x[end]) for row in experts.router]
    gates = torch.tensor(scores).exp() / sum(torch.tensor(scores).exp())
    added = []
    for token in x:
        added.append(sum(g * 0.5 * (B @ (A @ token)) for g, A, B in zip(gates, experts.A, experts.B, strict=True)))
    return torch.stack(added)


@torch.no_grad()
def test_losses_equal_those_of_a_slow_loop(plan):
    batch = AlignmentCollator.of(plan.student)(plan.train.__getitems__(range(4)))
    model = plan.student.model.eval()
    with_experts = model(**batch).loss_lm
    ends = [next(i for i, label in enumerate(row) if label != -100) - 1 for row in batch["labels"].tolist()]
    experts, model.query_experts = model.query_experts[str(LAYER)], torch.nn.ModuleDict()
    without = model(**batch).loss_lm

    def slow(module, args, output):
        return output + torch.stack([slow_addition(experts, x, end) for x, end in zip(args[0], ends, strict=True)])

    model.decoder_layers[LAYER].self_attn.q_proj.register_forward_hook(slow)
    torch.testing.assert_close(with_experts, model(**batch).loss_lm, atol=1e-6, rtol=1e-6)
    assert (with_experts - without).abs().min() > 1e-3


def test_the_router_does_not_see_the_answer(plan, monkeypatch):
    """In the released code it reads the answer's first token while training."""
    seen, gates = [], QueryExperts.gates
    monkeypatch.setattr(QueryExperts, "gates", lambda *args: seen.append(gates(*args)) or seen[-1])
    encoded = plan.train[1]
    changed = encoded.input_ids.where(encoded.labels == -100, encoded.input_ids.flip(0))
    assert not torch.equal(changed, encoded.input_ids)
    other = replace(encoded, input_ids=changed, labels=changed.where(encoded.labels != -100, -100))
    for sample in (encoded, other):
        plan.student.model.eval()(**AlignmentCollator.of(plan.student)([sample]))
    torch.testing.assert_close(*seen)
    assert float(seen[0].detach().sum()) == pytest.approx(1)


@torch.inference_mode()
def test_generation_keeps_the_gates_of_the_prompt(plan):
    """Through a cache, on both sides of reordered rows, against one pass over prompt and answer."""
    model = plan.student.model.eval()
    run = start_run(plan.student, plan.samples[1:3], 4)
    branch = run.branch()
    tokens = [branch.logits.argmax(dim=-1)]
    branch.step(tokens[0])
    branch.select(torch.tensor([1, 0]))
    tokens = [tokens[0][[1, 0]], branch.logits.argmax(dim=-1)]
    logits = branch.step(tokens[1])
    length = run.prompt.input_ids.shape[1]
    for row, sample in enumerate((1, 0)):
        ids = torch.cat([run.prompt.input_ids[sample], tokens[0][row : row + 1], tokens[1][row : row + 1]])
        kept = torch.cat([run.prompt.attention_mask[sample], torch.ones(2, dtype=torch.long)]).bool()
        with model.observe() as observation:
            observation.prompt_ends = torch.tensor([length - 1 - int((~kept).sum())])
            pixels = run.pixel_values[sample : sample + 1]
            whole = model.stock(input_ids=ids[kept][None], pixel_values=pixels, use_cache=False).logits[0, -1]
        torch.testing.assert_close(logits[row], whole, atol=1e-4, rtol=1e-4)


def test_a_run_is_planned_recorded_and_resumed_to_the_bit(lab, tmp_path, plan):
    width = plan.student.model.config.text_config.hidden_size
    assert plan.summary()["trainable_query_experts"] == 4 * (16 * width + 16 * width + width)
    without = plan_training(settings_with(lab, query_experts=False))
    assert plan.memory.activations > without.memory.activations
    assert "trainable_query_experts" not in without.summary()
    out = tmp_path / "run"
    shutil.copytree(lab / "adapter", out)
    shutil.rmtree(out / "checkpoint-3")
    for name in (ADAPTER_RECORD, EXPERTS, "adapter_model.safetensors"):
        (out / name).unlink()
    assert run_training(settings_with(lab), out, Silent(), resume=True).result.resumed_from == 2
    for name in (EXPERTS, "adapter_model.safetensors"):
        assert (out / name).read_bytes() == (lab / "adapter" / name).read_bytes()
    assert read_adapter_record(out).trained == {"language_model": "lora", "query_experts": "full"}
    loaded = load_student(out, device="cpu").model.query_experts[str(LAYER)]
    assert loaded.B.abs().max() > 0
    with pytest.raises(InputError, match="query_experts: True before, False now"):
        run_training(settings_with(lab, query_experts=False), out, Silent(), resume=True)


def test_what_cannot_run_is_refused_by_name(lab, tmp_path):
    image = next((lab / "images").glob("*.png"))
    with pytest.raises(SettingsError, match="no other command runs this student"):
        run_attend(AttendRequest(student=lab / "adapter", images=(image,), question="What?", device="cpu"),
                   tmp_path / "seen", Silent())  # fmt: skip
    with pytest.raises(InputError, match="cannot be exported: it has query experts"):
        export_student(lab / "adapter", tmp_path / "out", base=None, dtype=None, evaluations=(), progress=Silent())
    values = {"student": {"path": "base"}, "data": {"manifest": "m.parquet", "store": "s.zarr"}}
    for changed, problem in (
        ({"training": {"sharding": "fsdp2"}}, "whose weights are not sharded"),
        ({"alignment": {"visual_gradient": ["lora"]}}, "which cannot name the experts"),
    ):
        both = {"alignment": {"query_experts": True} | changed.get("alignment", {})}
        with pytest.raises(SettingsError, match=problem):
            settings_of(values | changed | both)


def test_experts_begin_as_lora_does():
    """peft's A: Kaiming uniform with a = sqrt(5), so uniform within 1 / sqrt(inputs); B: zero."""
    torch.manual_seed(0)
    experts = QueryExperts(64, 16)
    for weight in (experts.A, experts.router):
        assert 0.95 < 8 * weight.abs().max().item() <= 1
        assert weight.std().item() * 8 == pytest.approx(1 / 3**0.5, rel=0.1)
    assert not experts.B.any()

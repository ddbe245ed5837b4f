"""Image tokens projected from the teacher's features, without distillation: from the settings to the answers."""

import json
import shutil
from types import SimpleNamespace

import medalign
import pytest
import torch
from labs import hashes_of, lab_settings, make_lab
from medalign.errors import InputError, SettingsError, StoreError
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.evaluation.decoding_choice import read_decoding
from medalign.pipeline.evaluation.evaluate import EvaluationRequest, run_evaluation
from medalign.pipeline.model_folders import export_student
from medalign.pipeline.studies.units.study_inputs import DataStore
from medalign.pipeline.studies.units.work_units import AnswerUnit, TrainUnit
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.settings_loading import settings_of
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import ADAPTER_RECORD, read_adapter_record
from medalign.student.inputs.collation import AlignmentCollator
from medalign.student.loading.student_loading import load_student
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import open_store
from stores import write_store

OFF = {"image_tokens": "teacher", "alpha": 0.0, "beta": 0.0, "rotation": "none"}


def values_with(lab, **training):
    values = lab_settings(lab, **{"max_steps": 3, "save_steps": 2} | training)
    values["alignment"] |= OFF
    return values


def run(lab, out, *, resume=False):
    return run_training(Settings.model_validate(values_with(lab)), out, Silent(), resume=resume)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = make_lab(tmp_path_factory.mktemp("lab"))
    run(folder, folder / "adapter")
    return folder


@pytest.fixture
def request_for(lab):
    def request(**changed):
        fields = {"student": lab / "adapter", "manifest": lab / "manifest.parquet", "split": "validation",
                  "max_new_tokens": 2, "device": "cpu", "store": str(lab / "store.zarr")}  # fmt: skip
        return EvaluationRequest(**fields | changed)

    return request


@torch.no_grad()
def slow_losses(plan, batch):
    """Negative log likelihood of each answer, sample by sample, from embeddings that a loop puts together."""
    llava, projection = plan.student.model.stock, plan.student.model.teacher_projection
    one, two = projection.linear_1, projection.linear_2
    losses, image = [], 0
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        embeddings = llava.get_input_embeddings()(ids.where(ids != plan.student.image_token_id, 0)).clone()
        places = (ids == plan.student.image_token_id).nonzero()[:, 0].tolist()
        for number, place in enumerate(places):
            patch = batch["E_v"][image, number].double()
            patch = (patch - patch.mean()) / (patch.var(correction=0) + 1e-5).sqrt()
            inner = one.weight.double() @ patch + one.bias.double()
            inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
            embeddings[place] = (two.weight.double() @ inner + two.bias.double()).float()
        image += bool(places)
        hidden = llava.model.language_model(inputs_embeds=embeddings[None]).last_hidden_state[0]
        nll = -llava.lm_head(hidden).log_softmax(dim=-1)
        losses.append(sum(float(nll[i - 1, label]) for i, label in enumerate(labels.tolist()) if label != -100))
    return losses


def test_answers_are_learned_from_projected_features_alone(lab):
    plan = plan_training(Settings.model_validate(values_with(lab)))

    def refuse(*args):
        raise AssertionError("the vision tower ran")

    plan.student.model.stock.model.vision_tower.register_forward_pre_hook(refuse)
    batch = AlignmentCollator.of(plan.student)(plan.train.__getitems__(range(6)))
    assert "pixel_values" not in batch
    output = plan.student.model.eval()(**batch)
    tokens = (batch["labels"] != -100).sum(dim=1)  # losses are sums over an answer: up to 224 here
    slow = torch.tensor(slow_losses(plan, batch)) / tokens
    torch.testing.assert_close(output.loss_lm / tokens, slow, atol=1e-6, rtol=0)
    text_only = AlignmentCollator.of(plan.student)(plan.train.__getitems__([0, 4]))
    plan.student.model(**text_only).loss_lm.sum().backward()
    assert plan.student.model.teacher_projection.linear_1.weight.grad.abs().max() == 0  # in step with other processes
    summary = plan.summary()
    channels, width = plan.store.header.width, plan.student.model.config.text_config.hidden_size
    assert summary["trainable_teacher_projection"] == (channels + width + 2) * width
    assert summary["learning_rate_teacher_projection"] == 1e-2
    assert summary["image_tokens_from"] == "E_v of the store"


def test_a_run_is_recorded_and_resumed_to_the_bit(lab, tmp_path):
    out, file = tmp_path / "run", "teacher_projection.safetensors"
    shutil.copytree(lab / "adapter", out)
    shutil.rmtree(out / "checkpoint-3")
    for name in (ADAPTER_RECORD, file, "adapter_model.safetensors"):
        (out / name).unlink()
    assert run(lab, out, resume=True).result.resumed_from == 2
    for name in (file, "adapter_model.safetensors"):
        assert (out / name).read_bytes() == (lab / "adapter" / name).read_bytes()
    record = read_adapter_record(out)
    assert record.trained == {"language_model": "lora", "teacher_projection": "full"}
    assert record.store["fingerprint"] == open_store(lab / "store.zarr").header.fingerprint
    moved = values_with(lab) | {"trainable": {"teacher_projection_learning_rate": 1e-3}}
    with pytest.raises(InputError, match=r"teacher_projection_learning_rate: None before, 0\.001 now"):
        run_training(Settings.model_validate(moved), out, Silent(), resume=True)


def test_evaluation_reads_the_store_and_no_image(lab, request_for, tmp_path):
    medalign.evaluate(lab / "adapter", lab / "manifest.parquet", tmp_path / "one", split="validation", device="cpu",
                      store=lab / "store.zarr", max_new_tokens=2)  # fmt: skip
    described = json.loads((tmp_path / "one" / "metrics.json").read_text())["run"]["features"]
    assert described["fingerprint"] == open_store(lab / "store.zarr").header.fingerprint
    student = load_student(lab / "adapter", device="cpu", features=open_store(lab / "store.zarr"))
    trained = plan_training(Settings.model_validate(values_with(lab)))
    E_v = trained.train[1].E_v
    with torch.no_grad():
        assert not torch.equal(student.model.image_tokens(E_v), trained.student.model.image_tokens(E_v))
        assert student.model.image_tokens(E_v).shape == (1, 9, student.model.config.text_config.hidden_size)


def test_a_study_answers_with_the_store_of_the_training(lab, tmp_path):
    settings = Settings.model_validate(values_with(lab))
    trained = TrainUnit(label="arm", identity={}, settings=settings, questions=None)
    shutil.copytree(lab / "adapter", trained.run_folder(tmp_path))
    answers = AnswerUnit(
        label="answers",
        identity={},
        needs=(trained,),
        base=lab / "student",
        template=None,
        dtype="float32",
        device="cpu",
        features=DataStore(location=str(lab / "store.zarr"), hash_key=None),
        questions=SimpleNamespace(manifest=Manifest.read(lab / "manifest.parquet").split("validation")),
        decoding=read_decoding("greedy", (), max_new_tokens=2),
        batch_size=4,
    )
    assert answers.do(tmp_path, Silent())["questions"] == 4
    assert "features" in json.loads((answers.run_folder(tmp_path) / "metrics.json").read_text())["run"]


def test_what_cannot_run_is_refused_by_name(lab, request_for, tmp_path):
    adapter = lab / "adapter"
    with pytest.raises(
        SettingsError, match=r"so it runs only on images of a teacher store: `medalign student evaluate"
    ):
        run_evaluation(request_for(store=None), tmp_path / "never", Silent())
    with pytest.raises(SettingsError, match="no other command runs it"):
        load_student(adapter, device="cpu")
    with pytest.raises(SettingsError, match=r"come from its own vision tower: omit the store"):
        run_evaluation(request_for(student=lab / "student"), tmp_path / "never", Silent())
    with pytest.raises(SettingsError, match="vcd decoding reads the pixels of images"):
        run_evaluation(request_for(decode="vcd"), tmp_path / "never", Silent())
    with pytest.raises(InputError, match="cannot be exported: its image tokens are a projection of teacher features"):
        export_student(adapter, tmp_path / "never", base=None, dtype=None, evaluations=(), progress=Silent())
    hashes = hashes_of(sorted((lab / "images").glob("*.png")))
    other = write_store(tmp_path / "other.zarr", range(2), hashes=hashes[:2], grid=PatchGrid(3, 3), profile="native")
    with pytest.raises(SettingsError, match="pass a store that was extracted with the same teacher and options"):
        run_evaluation(request_for(store=str(other)), tmp_path / "never", Silent())
    small = write_store(tmp_path / "small.zarr", range(2), hashes=hashes[:2], grid=PatchGrid(3, 3))
    with pytest.raises(StoreError, match="have no row"):
        run_evaluation(request_for(store=str(small)), tmp_path / "never", Silent())
    assert not (tmp_path / "never").exists()


def test_a_store_without_features_is_refused(lab, tmp_path):
    hashes = hashes_of(sorted((lab / "images").glob("*.png")))
    store = write_store(tmp_path / "gram.zarr", range(22), hashes=hashes, grid=PatchGrid(3, 3), profile="gram16")
    values = values_with(lab)
    values["data"]["store"] = str(store)
    with pytest.raises(StoreError, match="has profile gram16, which holds cosines"):
        plan_training(Settings.model_validate(values))


@pytest.mark.parametrize(
    ("section", "changed", "problem"),
    [
        ("alignment", {"alpha": 1.0}, "the arm without distillation, but alignment.alpha is 1.0"),
        ("alignment", {"rotation": "full"}, "set alpha and beta to 0 and rotation to none"),
        ("trainable", {"projector": "full"}, "neither tower nor projector runs"),
        ("training", {"sharding": "fsdp2"}, "whose projection is not sharded"),
        ("data", {"store": None}, "Name the teacher store whose E_v"),
    ],
)
def test_settings_that_contradict_it_are_refused(section, changed, problem):
    values = {"student": {"path": "base"}, "data": {"manifest": "m.parquet", "store": "s.zarr"}, "alignment": OFF}
    settings_of(values)
    with pytest.raises(SettingsError, match=problem):
        settings_of(values | {section: values.get(section, {}) | changed})
    with pytest.raises(
        SettingsError, match=r"teacher_projection_learning_rate is 0\.1, but alignment\.image_tokens is"
    ):
        settings_of(values | {"alignment": {}, "trainable": {"teacher_projection_learning_rate": 0.1}})

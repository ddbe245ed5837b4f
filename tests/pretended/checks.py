"""Checks of students and teachers on a pretended GPU, in a process that has its runtime (runtime.py).

Each check is named on the command line as KIND:NAME[:KEY=VALUE...] and prints one line of JSON: what was counted, or
the error that ended it.
"""

import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import torch
from medalign.student.adapters.trainable import LearningRates, TrainableParts, parameter_groups
from medalign.student.alignment import aligned_student as aligned_module
from medalign.student.decoding import choose_decoding
from medalign.student.decoding.core.batch_run import Run
from medalign.student.decoding.core.cost import Cost
from medalign.student.decoding.core.prompt import Prompt
from medalign.student.inputs.batch_layout import with_tensors
from medalign.student.inputs.collation import AlignmentCollator, EncodedSample
from medalign.student.inputs.spans import find_images
from medalign.student.inspection.question_attention import attention_of_layers, find_questions
from medalign.student.training.step_memory import StepShape, estimate_memory
from medalign.student.training.trainer import AlignmentTrainer
from medalign.student.training.training_options import AUTOCAST, TrainingOptions
from medalign.student.training.training_run import training_arguments
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store.format.profiles import PROFILES, encode
from medalign.teacher_cache.teachers.forward import Teacher
from medalign.teacher_cache.teachers.registry import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from pretended.gpu import PretendedGpu
from pretended.models import PATCHES, batch_of, pretended_student
from pretended.values import RealArithmetic, on_gpu
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainerCallback

OPTIONS = TrainingOptions(
    alpha=1.0,
    beta=0.03,
    learning_rates=LearningRates(language_model=2e-4, projector=2e-5, vision_tower=2e-4, rotation=2e-5),
    weight_decay=0.0,
    max_grad_norm=1.0,
    warmup_ratio=0.0,
    num_train_epochs=1.0,
    max_steps=2,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=1,
    eval_steps=None,
    save_steps=None,
    logging_steps=100,
    patience=None,
    group_by_length=False,
    gradient_checkpointing=None,
    sharding=None,
    report_to=(),
    precision="bfloat16",
    dataloader_num_workers=0,
    seed=0,
    device="cuda",
)
RIGHT = aligned_module.visual_alignment_loss


def train(name: str, **options: str) -> dict[str, Any]:
    """The last batch of an optimizer step, and the step; with a `fault` planted, the forward pass alone."""
    dtype = options.get("dtype", "bfloat16")
    depth = int(options["depth"]) if "depth" in options else None
    layers = tuple(map(int, options.get("layers", "20").split(",")))
    checkpointing: Any = options.get("checkpointing")
    images = int(options.get("images", 1))
    samples, length, answer = (int(options.get(key, default)) for key, default in SIZES.items())
    parts = TrainableParts(
        rank=int(options.get("rank", 32)),
        alpha=16,
        dropout=0.05,
        projector=options.get("projector", "none"),
        vision_tower=options.get("tower", "none"),
    )
    with PretendedGpu() as gpu:
        model = pretended_student(
            name,
            depth=depth,
            layers=layers,
            tower_depth=FEW if "fault" in options else 24,
            rotation=options.get("rotation", "full"),
            dtype=getattr(torch, dtype),
            parts=parts,
        )
        model.to("cuda").train()
        if checkpointing:
            model.checkpoint_gradients(checkpointing)
        optimizer = torch.optim.AdamW(parameter_groups(model, OPTIONS.learning_rates, 0.0))
        with RealArithmetic():
            batch = batch_of(
                model, samples=samples, length=length, answer=answer, images=images, gram="gram" in options
            )
            batch = {key: value.pin_memory() for key, value in batch.items()}
        _plant(options.get("fault"))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:  # as behind a first step, and behind the first batch of the second
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        reached = _reached_by_gradients(model)
        gpu.reset()
        loss = _loss(model, {key: value.to("cuda", non_blocking=True) for key, value in batch.items()}, dtype)
        if "fault" in options:
            return _waits(gpu)
        loss.backward()
        missing = [name for name, p in model.named_parameters() if p.requires_grad and name not in reached]
        assert not missing, f"no gradient reaches {missing}"
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        shape = StepShape(
            samples=samples,
            tokens=length,
            answer_tokens=answer,
            images=samples * images,
            attention_rows=length - answer - 5 - images * PATCHES if images else 0,
        )
        estimate = estimate_memory(model, parts, shape, precision=dtype, checkpointing=checkpointing)
        return {"peak": gpu.peak, "estimate": estimate.total, **_waits(gpu)}


FEW = 3
"""Layers of an image tower in checks that count waits only: each layer does the same."""
SIZES = {"samples": 4, "length": 1024, "answer": 8}


def _loss(model: Any, batch: dict[str, Any], dtype: str) -> torch.Tensor:
    output = model(**batch, autocast=AUTOCAST[dtype])
    loss = output.loss_lm.sum() / 32
    if output.loss_vis is not None:
        loss = loss + output.loss_vis.sum() / 4 + output.loss_att.sum() / 4
    assert loss.dtype == torch.float32
    assert on_gpu(loss)
    return loss


def _reached_by_gradients(model: Any) -> set[str]:
    """Names of trained parameters, filled as gradients reach them; both are float32, and everything is on the GPU."""
    reached: set[str] = set()

    def note(name: str, parameter: Tensor) -> None:
        assert parameter.grad is not None
        assert parameter.grad.dtype == parameter.dtype == torch.float32, name
        reached.add(name)

    for name, parameter in model.named_parameters():
        assert on_gpu(parameter), name
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(partial(note, name))
    return reached


def _plant(fault: str | None) -> None:
    """Put a fault into L_vis, as a hurried change might."""

    def without_device(student: Any, *teacher: Any) -> Any:
        return RIGHT(student, *teacher) * torch.ones(len(student))

    def reading(student: Any, *teacher: Any) -> Any:
        losses = RIGHT(student, *teacher)
        return losses if losses.sum().item() >= 0 else -losses

    faults: dict[str | None, Callable[..., Any]] = {None: RIGHT, "device": without_device, "item": reading}
    aligned_module.visual_alignment_loss = faults[fault]


def trainer(name: str, **options: str) -> dict[str, Any]:
    """Two optimizer steps by transformers' Trainer, as a run sets it up; counts are of the second."""
    with PretendedGpu() as gpu, TemporaryDirectory() as folder:
        parts = TrainableParts(rank=8, alpha=16, dropout=0.05)
        model = pretended_student(name, depth=2, layers=(1,), tower_depth=FEW, parts=parts)
        student: Any = SimpleNamespace(
            model=model,
            tokenizer=SimpleNamespace(pad_token_id=0),
            images=SimpleNamespace(grid=PatchGrid(24, 24)),
            image_token_id=model.image_token_id,
        )
        arguments = training_arguments(student, OPTIONS, Path(folder), evaluate=False)
        arguments.save_strategy = "no"
        steps, collate = _Steps(gpu), AlignmentCollator.of(student)

        def collate_really(encoded: Any) -> dict[str, Any]:
            with RealArithmetic():
                return collate(encoded)

        with RealArithmetic():
            data = _Endless(model.image_token_id)
        run = AlignmentTrainer(
            student,
            cast(Any, None),
            OPTIONS,
            data,
            None,
            args=arguments,
            data_collator=collate_really,
            callbacks=[steps],
        )
        run.train()
        first, last = steps.waits
        return {"steps": len(steps.waits), "our_waits": dict(last - first), "other_waits": dict(gpu.other_waits)}


class _Steps(TrainerCallback):
    """Notes how often the host has waited after each step."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self._gpu = gpu
        self.waits: list[Counter[str]] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.waits.append(Counter(self._gpu.our_waits))


class _Endless(Dataset[EncodedSample]):
    """One sample, again and again."""

    def __init__(self, image_token_id: int) -> None:
        ids = torch.randint(10, 1000, (640,))
        ids[5 : 5 + PATCHES] = image_token_id
        self._sample = EncodedSample(
            input_ids=ids,
            labels=torch.where(torch.arange(640) < 630, -100, ids),
            pixel_values=torch.randn(1, 3, 336, 336),
            E_v=torch.rand(1, PATCHES, 512),
            E_a=torch.rand(1, PATCHES),
        )

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> EncodedSample:
        return self._sample


def decode(name: str, method: str, **options: str) -> dict[str, Any]:
    """Four tokens for a batch of four padded prompts; the most waits of ours between two tokens."""
    with PretendedGpu() as gpu, torch.inference_mode():
        model = pretended_student(name, depth=3, layers=(1,), tower_depth=FEW).to("cuda").eval()
        with RealArithmetic():
            ids, mask, images, pixels = _prompts(model)
        pixels_on_card = pixels.to("cuda")
        prompt = Prompt(
            input_ids=ids.to("cuda"),
            attention_mask=mask.to("cuda"),
            images=with_tensors(images, lambda tensor: tensor.to("cuda")),
            image_tokens=model.image_tokens(pixels_on_card),
        )
        cost = _Watched(4, model.device, gpu)
        gpu.reset()
        student: Any = SimpleNamespace(model=model, tokenizer=SimpleNamespace(eos_token_id=2), end_tokens=(2,))
        run = Run(
            student=student,
            prompt=prompt,
            pixel_values=pixels_on_card,
            question_ids=tuple("abcd"),
            max_new_tokens=4,
            cost=cost,
        )
        settings = {"temperature": 1.0, "top_p": 0.9} if method == "nucleus" else {}
        decoding = choose_decoding(method, settings, max_new_tokens=4)
        tokens = decoding.method.answer(run, decoding.settings)
        assert on_gpu(tokens)
        between = [after - before for before, after in zip(cost.waits[:-1], cost.waits[1:], strict=True)]
        return {"tokens": len(cost.waits), "waits_per_token": max(between), **_waits(gpu)}


class _Watched(Cost):
    """Notes how often the host has waited at each token: methods say then which samples are still open."""

    def __init__(self, samples: int, device: torch.device, gpu: PretendedGpu) -> None:
        super().__init__(samples, device)
        self._gpu = gpu
        self.waits: list[int] = []

    def keep_open(self, samples: torch.Tensor) -> None:
        self.waits.append(self._gpu.our_waits.total() + self._gpu.other_waits.total())
        super().keep_open(samples)


def _prompts(model: Any) -> tuple[torch.Tensor, torch.Tensor, Any, torch.Tensor]:
    """Four prompts with one image each, padded on the left."""
    batch = batch_of(model, samples=4, length=640, answer=1, images=1, gram=True, ragged=False)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    for row in range(1, len(ids)):
        ids[row] = torch.cat([torch.zeros(row, dtype=torch.long), ids[row, :-row]])
        mask[row, :row] = 0
    images = find_images(ids, model.image_token_id, PATCHES)
    return ids, mask, images, batch["pixel_values"].bfloat16()


def ground(name: str, **options: str) -> dict[str, Any]:
    """Attention rows of every layer."""
    with PretendedGpu() as gpu:
        model = pretended_student(name, depth=2, layers=(1,), tower_depth=FEW).to("cuda").eval()
        with RealArithmetic():
            ids, mask, _, pixels = _prompts(model)
            request = tuple(with_tensors(part, Tensor.pin_memory) for part in find_questions(model, ids, mask))
        on_card = [tensor.to("cuda") for tensor in (ids, mask, pixels)]
        gpu.reset()
        maps = attention_of_layers(model, *on_card, request)
        assert on_gpu(maps)
        assert tuple(maps.shape) == (4, 2, PATCHES)
        return _waits(gpu)


def teacher(name: str, dtype: str, **options: str) -> dict[str, Any]:
    """A teacher's patches and attention of a batch, and each profile's bytes."""
    spec = teacher_spec(name)
    with PretendedGpu() as gpu:
        tower = build_tower(spec).to("cuda").requires_grad_(False).eval()
        loaded = Teacher(spec=spec, tower=tower, device=torch.device("cuda"), dtype=dtype, weights_sha256="")
        with RealArithmetic():
            pixels = torch.randn(2, 3, spec.image_size, spec.image_size)
        gpu.reset()
        output = loaded.forward(pixels)
        assert on_gpu(output.patches)
        assert output.patches.dtype == output.attention.dtype == torch.float32
        for profile in PROFILES if dtype == "bfloat16" else ():
            encode(profile, output.patches, output.attention, spec.grid, PatchGrid(24, 24))
        return _waits(gpu)


def _waits(gpu: PretendedGpu) -> dict[str, Any]:
    return {"our_waits": dict(gpu.our_waits), "other_waits": dict(gpu.other_waits)}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "train": train,
    "trainer": trainer,
    "decode": decode,
    "ground": ground,
    "teacher": teacher,
}


def main() -> None:
    for check in sys.argv[1:]:
        kind, *rest = check.split(":")
        options = dict(item.split("=") for item in rest if "=" in item)
        found: dict[str, Any]
        try:
            found = KINDS[kind](*[item for item in rest if "=" not in item], **options)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        print(json.dumps({"check": check, **found}), flush=True)


if __name__ == "__main__":
    main()

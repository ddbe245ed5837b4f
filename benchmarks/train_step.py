"""A MEDALIGN step against a plain LoRA step, and against the released method's way of taking attention.

    python benchmarks/train_step.py --student DIR [--layer 18] [--lengths 640 1024 2048] [--rounds 5] [--json]

`--student` is any transformers Llava folder (`medalign student init` makes one). Pixels, tokens and targets are random.
Five contestants share the base's weights and take turns in one process, forward and backward, in turned order every
other round:

    lora      LoRA alone on sdpa attention
    medalign  LoRA, W and both losses, rows of one layer beside sdpa
    only-w    medalign, with alignment.visual_gradient [rotation]
    only-lora medalign, with alignment.visual_gradient [lora]
    released  LoRA, W and both losses as the released code takes them: eager attention in every layer, all maps
              returned, the rows picked from the map of layer l, W on the output of layer l - 1

Time is the median over rounds of the ratio to `lora` in the same round; memory is the most that a step allocates beyond
what is there before it, from the profiler's record of allocations (on CUDA from its allocator).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from medalign.choices import RotationMode
from medalign.student.adapters.adapter_folder import add_lora
from medalign.student.adapters.parameter_names import Part
from medalign.student.alignment.losses import attention_alignment_loss, visual_alignment_loss
from medalign.student.alignment.rotation import Rotation
from medalign.student.loading.student_loading import Student, open_student
from medalign.student.training.restricted_gradient import parameters_of, restrict_gradient
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from peak_memory import peak_bytes
from torch import Tensor
from torch.nn import functional

ANSWER = 8
"""Tokens with a label at the end of every sample."""

Batch = dict[str, Tensor]
Step = Callable[[], None]


def lora_student(folder: Path, layers: Sequence[int], rotation: RotationMode) -> Student:
    student = open_student(folder, layers=layers, rotation=rotation)
    add_lora(student.model, base=student.base, rank=32, alpha=16, dropout=0.0)
    student.model.train()
    return student


def make_batch(student: Student, length: int) -> Batch:
    """One sample: four tokens, the image, a question, and the answer."""
    patches, size = student.model.patches, student.images.size
    ids = torch.randint(10, 1000, (1, length))
    ids[:, 4 : 4 + patches] = student.model.image_token_id
    labels = torch.full_like(ids, -100)
    labels[:, -ANSWER:] = ids[:, -ANSWER:]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "pixel_values": torch.randn(1, 3, size, size),
    }


def our_step(student: Student, batch: Batch, visual_parts: Sequence[Part] | None = None) -> Step:
    def step() -> None:
        student.model.zero_grad()
        output = student.model(**batch)
        loss = output.loss_lm.sum()
        if output.loss_vis is not None and output.loss_att is not None:
            visual = output.loss_vis.sum()
            if visual_parts is not None:
                visual = restrict_gradient(visual, parameters_of(student.model, visual_parts))
            loss = loss + visual + output.loss_att.sum()
        torch.autograd.backward(loss)

    return step


def released_step(student: Student, layer: int, batch: Batch, E_v: Tensor, E_a: Tensor) -> Step:
    """The released method's arithmetic on batch size one, written anew."""
    llava, patches = student.model.llava, student.model.patches
    llava.set_attn_implementation("eager")
    decoder = llava.get_decoder().layers
    rotation = Rotation(llava.config.text_config.hidden_size)
    image = slice(4, 4 + patches)
    question = slice(4 + patches, batch["input_ids"].shape[1] - ANSWER)
    seen: list[Tensor] = []

    def rotate(module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(rotation(output[:, image]))
        return torch.cat([output[:, : image.start], seen[-1], output[:, image.stop :]], dim=1)

    decoder[layer - 1].register_forward_hook(rotate)

    def step() -> None:
        llava.zero_grad()
        rotation.zero_grad()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
        output = llava(**inputs, output_attentions=True, use_cache=False)
        logits, targets = output.logits[:, :-1].float(), batch["labels"][:, 1:]
        loss = functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="sum")
        rows = output.attentions[layer][:, :, question, image].float().mean(dim=(1, 2))
        loss = loss + visual_alignment_loss(cosine_matrix(seen.pop()), cosine_matrix(E_v)).sum()
        loss = loss + attention_alignment_loss(rows, E_a, "l2").sum()
        torch.autograd.backward(loss)

    return step


def seconds(step: Step) -> float:
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(folder: Path, layer: int, length: int, rounds: int) -> dict[str, dict[str, float]]:
    torch.manual_seed(0)
    students = {"lora": lora_student(folder, [], "none"), "medalign": lora_student(folder, [layer], "full")}
    eager = lora_student(folder, [], "none")
    batch = make_batch(eager, length)
    patches = eager.model.patches
    targets = {"E_v": torch.randn(1, patches, 768), "E_a": torch.rand(1, patches)}
    steps = {
        "lora": our_step(students["lora"], batch),
        "medalign": our_step(students["medalign"], batch | targets),
        "only-w": our_step(students["medalign"], batch | targets, ["rotation"]),
        "only-lora": our_step(students["medalign"], batch | targets, ["language_model"]),
        "released": released_step(eager, layer, batch, targets["E_v"], targets["E_a"]),
    }
    memory = {name: peak_bytes(step) for name, step in steps.items()}  # the first pass also warms up
    orders = [list(steps), list(reversed(steps))]  # so that nobody always follows the one with the largest memory
    taken = [{name: seconds(steps[name]) for name in orders[number % 2]} for number in range(rounds)]
    return {
        name: {
            "seconds": statistics.median(times[name] for times in taken),
            "ratio": statistics.median(times[name] / times["lora"] for times in taken),
            "peak_mb": memory[name] / 1e6,
            "memory_ratio": memory[name] / memory["lora"],
        }
        for name in steps
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--layer", type=int, default=18)
    parser.add_argument("--lengths", type=int, nargs="+", default=[640, 1024, 2048])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    results = {length: compare(asked.student, asked.layer, length, asked.rounds) for length in asked.lengths}
    if asked.json:
        print(json.dumps(results, indent=2))
        return
    for length, contestants in results.items():
        print(f"{length} tokens, batch 1, {torch.get_num_threads()} threads, {asked.rounds} rounds")
        for name, found in contestants.items():
            print(
                f"  {name:9} {found['seconds']:7.3f} s  x{found['ratio']:.3f}   peak {found['peak_mb']:8.1f} MB  "
                f"x{found['memory_ratio']:.3f}"
            )


if __name__ == "__main__":
    main()

"""A MEDALIGN step against a plain LoRA step: forward and backward, taking turns in one process.

    python benchmarks/train_step.py --student DIR [--layer 18] [--batch 1] [--text 64] [--rounds 5]

`--student` is any transformers Llava folder (`medalign student init` makes one). Pixels, tokens and targets are random.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from medalign.student.adapters import add_lora
from medalign.student.loading import Student, open_student
from medalign.student.rotation import RotationMode


def make_student(folder: Path, layer: int, *, rotation: RotationMode) -> Student:
    student = open_student(folder, layers=[layer], rotation=rotation)
    add_lora(student.model, base=student.base, rank=32, alpha=16, dropout=0.0)
    student.model.train()
    return student


def make_batch(student: Student, batch: int, text: int) -> dict[str, torch.Tensor]:
    """Image tokens, then `text` tokens of which the last 8 are the answer."""
    patches, size = student.model.patches, student.images.size
    ids = torch.randint(10, 1000, (batch, 4 + patches + text))
    ids[:, 4 : 4 + patches] = student.model.image_token_id
    labels = torch.full_like(ids, -100)
    labels[:, -8:] = ids[:, -8:]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "pixel_values": torch.randn(batch, 3, size, size),
    }


def step(student: Student, batch: dict[str, torch.Tensor]) -> float:
    """Seconds of one forward and backward pass."""
    student.model.zero_grad()
    started = time.perf_counter()
    output = student.model(**batch)
    loss = output.loss_lm.sum()
    if output.loss_vis is not None and output.loss_att is not None:
        loss = loss + output.loss_vis.sum() + output.loss_att.sum()
    torch.autograd.backward(loss)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--layer", type=int, default=18)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--text", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.manual_seed(0)
    plain = make_student(asked.student, asked.layer, rotation="none")
    aligned = make_student(asked.student, asked.layer, rotation="full")
    batch = make_batch(plain, asked.batch, asked.text)
    patches = plain.model.patches
    targets = {"E_v": torch.randn(asked.batch, patches, 768), "E_a": torch.rand(asked.batch, patches)}
    step(plain, batch)
    step(aligned, batch | targets)
    ratios = []
    for number in range(asked.rounds):
        lora, medalign = step(plain, batch), step(aligned, batch | targets)
        ratios.append(medalign / lora)
        print(f"round {number + 1}: LoRA {lora:.2f} s, MEDALIGN {medalign:.2f} s, ratio {ratios[-1]:.3f}")
    print(f"{batch['input_ids'].shape[1]} tokens, batch {asked.batch}: median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()

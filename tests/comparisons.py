"""A small comparison: a tiny student, two ways of training it with two seeds each, six questions about three images."""

from pathlib import Path
from typing import Any

import torch
import yaml
from medalign.pipeline.data.importers.common import read_images
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.evaluation.comparison.spec import ComparisonSpec
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import save_adapter
from students import adapter_record, trainable, write_images, write_tiny_student

KINDS = (("closed", "yes"), ("open", "left lung"), ("report", "The lungs are clear."))


def make_bench(folder: Path) -> Path:
    """`student`, `adapters` and `manifest.parquet` in a folder."""
    write_tiny_student(folder / "student")
    for seed in (0, 1):
        for name in ("lora", "medalign"):
            write_adapter(folder / "student", folder / "adapters" / f"{name}-{seed}", seed + 10 * (name == "lora"))
    names = [path.name for path in write_images(folder / "images", [(24, 24), (40, 20), (18, 30)])]
    columns = read_images(folder / "images", names, Silent()).columns
    rows = [
        ManifestRow(
            question_id=f"q{number}",
            question="Is it there?" if number % 2 else "What is the largest organ?",
            answer=KINDS[number // 2][1],
            answer_type=KINDS[number // 2][0],
            split="test",
            data_use="public",
            **columns[names[number % 3]],
        )
        for number in range(6)
    ]
    Manifest.from_rows(rows, folder / "images", "bench").write(folder / "manifest.parquet")
    return folder


def write_adapter(base: Path, folder: Path, seed: int) -> None:
    student = trainable(base)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name or "rotation" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    save_adapter(student.model, adapter_record(student), folder)


def bench_values(folder: Path) -> dict[str, Any]:
    """The specification as its YAML file would hold it."""
    adapters = [
        {"name": name, "paths": [str(folder / "adapters" / f"{stem}-{seed}") for seed in (0, 1)]}
        for name, stem in (("LoRA", "lora"), ("MEDALIGN", "medalign"))
    ]
    return {
        "students": [{"name": "tiny", "path": str(folder / "student"), "adapters": adapters}],
        "decodings": ["greedy", {"name": "warm", "method": "nucleus", "settings": {"temperature": 1.5}}],
        "data": [{"name": "noise", "manifest": str(folder / "manifest.parquet")}],
        "seeds": [0, 1],
        "max_new_tokens": 3,
        "batch_size": 4,
        "baseline": {"adapter": "LoRA", "decoding": "greedy"},
        "resamples": 200,
        "rounds": 100,
    }


def bench_spec(folder: Path, **changes: Any) -> ComparisonSpec:
    return ComparisonSpec.model_validate(bench_values(folder) | changes)


def write_spec(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path

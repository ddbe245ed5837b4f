"""Does `medalign student inspect` name a stage that was damaged on purpose, and none where nothing was?

For each seed, phantoms are drawn and the demo's student is inspected three times: undamaged; with a damaged tower (its
patch embedding responds to one random pattern instead of 128, and the weights of its blocks are shuffled); and with a
damaged decoder layer (its output at image tokens keeps one random direction of 128). Prints how often each verdict was
given, with pixels only and with the teacher's E_v beside them.

    python benchmarks/damaged_stages.py --seeds 20
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.demo.demo import ASSETS
from medalign.pipeline.inspection.cell_labels import CellLabels, label_cells
from medalign.pipeline.inspection.inspected_images import InspectedImages, inspected_images
from medalign.pipeline.inspection.probes.probe_tasks import probe_families
from medalign.pipeline.inspection.probes.stage_scores import StageScores, probe_stages
from medalign.pipeline.inspection.probes.verdict import Verdict, judge
from medalign.progress import Silent
from medalign.student.inspection.token_capture import TEACHER, StageTokens, capture_tokens
from medalign.student.loading.student_loading import Student, load_student
from medalign.teacher_cache.extraction.targets_in_memory import compute_targets
from medalign.teacher_cache.teachers.teacher_loading import load_teacher
from torch import nn

LAYER = 2
"""The decoder layer that is damaged, of 0 to 5; the verdict must name it."""


@contextmanager
def undamaged(student: Student, seed: int) -> Iterator[None]:
    """Change nothing."""
    yield


@contextmanager
def damaged_tower(student: Student, seed: int) -> Iterator[None]:
    """One random pattern without brightness instead of the patch embedding's filters, and shuffled blocks."""
    tower = student.model.stock.model.vision_tower
    generator = torch.Generator().manual_seed(seed)
    saved = copy.deepcopy(tower.state_dict())
    with torch.no_grad():
        for name, weight in tower.named_parameters():
            if name.endswith("patch_embedding.weight"):
                pattern = torch.randn(weight.shape[1:], generator=generator)
                pattern -= pattern.mean()
                scale = weight.norm() / (pattern.norm() * len(weight) ** 0.5)
                signs = torch.randn(len(weight), generator=generator).sign()
                weight.copy_(signs[:, None, None, None] * pattern * scale)
            elif ".layers." in name and weight.ndim > 1:
                order = torch.randperm(weight.numel(), generator=generator)
                weight.copy_(weight.flatten()[order].view_as(weight))
    yield
    tower.load_state_dict(saved)


@contextmanager
def damaged_layer(student: Student, seed: int) -> Iterator[None]:
    """Keep one random direction of the layer's output at image tokens, which come first in every prompt."""
    generator = torch.Generator().manual_seed(seed)
    layer = student.model.decoder_layers[LAYER]
    width = student.model.config.text_config.hidden_size
    direction = nn.functional.normalize(torch.randn(width, generator=generator), dim=0)

    def project(module: nn.Module, args: tuple[object, ...], output: torch.Tensor) -> torch.Tensor:
        return (output @ direction)[..., None] * direction

    handle = layer.register_forward_hook(project)
    yield
    handle.remove()


DAMAGES: dict[str, tuple[Callable[..., object], str | None]] = {
    "none": (undamaged, None),
    "tower": (damaged_tower, "tower"),
    f"layer {LAYER}": (damaged_layer, f"layer {LAYER}"),
}
"""What is done -> how, and the place that the verdict must name."""


def phantoms(folder: Path, images: int, seed: int, student: Student) -> tuple[InspectedImages, CellLabels]:
    """New phantoms, all of them in the sample, and the names of their patches."""
    report = make_phantoms(folder, images, 1000 + seed, Silent())
    inspected = inspected_images(Manifest.read(report.path), limit=images, shown=1, seed=seed)
    return inspected, label_cells(inspected, student.images.grid, seed=seed, progress=Silent())


def teacher_stage(inspected: InspectedImages, cells: CellLabels, student: Student) -> StageTokens:
    """E_v of the demo's teacher."""
    teacher = load_teacher("phantom-tiny", ASSETS / "phantom-teacher.safetensors")
    images = [image.path for image in inspected.files]
    targets = compute_targets(teacher, images, grid=student.images.grid, geometry="pad", batch_size=32)
    E_v = targets.E_v.float().numpy()
    return StageTokens(
        name=TEACHER,
        tokens=np.take_along_axis(E_v, cells.chosen[..., None], axis=1),
        pooled=np.concatenate([E_v.mean(axis=1), E_v.std(axis=1)], axis=1),
        agreement=np.full(len(E_v), np.nan),
    )


def without_teacher(scores: StageScores) -> StageScores:
    """The same scores with pixels as the only source."""
    kept = [place for place, name in enumerate(scores.stages) if name != TEACHER]
    values = {field: getattr(scores, field) for field in scores.__dataclass_fields__}
    return StageScores(
        **values | {"stages": tuple(scores.stages[place] for place in kept), "correct": scores.correct[kept]}
    )


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """One seed's phantoms, and what the undamaged student's stages are, so that equal ones are probed once."""

    images: InspectedImages
    cells: CellLabels
    teacher: StageTokens
    stages: dict[str, StageTokens] = field(default_factory=dict)
    scores: dict[str, StageScores] = field(default_factory=dict)


def inspect_once(student: Student, seen: Inspected, seed: int) -> dict[tuple[str, str], tuple[StageScores, Verdict]]:
    """The scores and the verdict of each family, with and without the teacher."""
    tokens = capture_tokens(
        student, seen.images.samples, torch.from_numpy(seen.cells.chosen), None, batch_size=32, progress=Silent()
    )
    stages = {stage.name: stage for stage in (tokens[0], seen.teacher, *tokens[1:])}
    same = {name for name in seen.stages if np.array_equal(stages[name].pooled, seen.stages[name].pooled)}
    verdicts = {}
    for family in probe_families(seen.images, seen.cells):
        scores = probe_stages(
            family, list(stages.values()), seen.cells.chosen, student.images.grid, seed=seed, progress=Silent(),
            known=seen.scores.get(family.name), same=same,
        )  # fmt: skip
        seen.scores.setdefault(family.name, scores)
        verdicts[family.name, "pixels and teacher"] = scores, judge(scores, seed)
        pixels = without_teacher(scores)
        verdicts[family.name, "pixels"] = pixels, judge(pixels, seed)
    for name, stage in stages.items():
        seen.stages.setdefault(name, stage)
    return verdicts


def inspect_seed(student: Student, images: int, seed: int) -> Iterator[tuple[str, str, str, StageScores, Verdict]]:
    """Damage, probes, sources, scores and verdict of every inspection of one seed; the undamaged student first."""
    with tempfile.TemporaryDirectory() as folder:
        inspected, cells = phantoms(Path(folder) / "phantoms", images, seed, student)
        seen = Inspected(images=inspected, cells=cells, teacher=teacher_stage(inspected, cells, student))
        for damage, (damaged, _) in DAMAGES.items():
            with damaged(student, seed):
                found = inspect_once(student, seen, seed)
            for (family, sources), (scores, verdict) in found.items():
                yield damage, family, sources, scores, verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--verbose", action="store_true", help="print every verdict and score")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    student = load_student(ASSETS / "phantom-student", template="plain")
    named: Counter[tuple[str, str, str, str]] = Counter()
    begun = time.perf_counter()
    for seed in range(options.first, options.first + options.seeds):
        for damage, family, sources, scores, verdict in inspect_seed(student, options.images, seed):
            named[damage, family, sources, verdict.place or verdict.kind] += 1
            if options.verbose:
                curve = " ".join(f"{n} {v:.3f}" for n, v in zip(scores.stages, scores.values(), strict=True))
                print(f"{seed}, {damage}, {family}, {sources}: {curve}\n    {verdict.sentence}", file=sys.stderr)
        print(f"seed {seed}, {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    rows = [
        {
            "damage": damage,
            "probes": family,
            "sources": sources,
            "verdict": verdict,
            "seeds": count,
            "right": verdict == (DAMAGES[damage][1] or "none"),
        }
        for (damage, family, sources, verdict), count in sorted(named.items())
    ]
    if options.json:
        print(json.dumps({"seeds": options.seeds, "images": options.images, "verdicts": rows}, indent=2))
        return
    for row in rows:
        print(
            "{damage:8} {probes:8} {sources:18} {verdict:10} {seeds:3}".format(**row), "" if row["right"] else "wrong"
        )


if __name__ == "__main__":
    main()

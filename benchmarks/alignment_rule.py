"""Do the probes of `medalign student inspect` tell beforehand whether alignment with a teacher will help answers?

A regime is a look of phantoms (a shift from the look that the demo's student knows) and a teacher. In each, `inspect`
probes the student and the teacher's E_v on validation images; then a study measures what `student align` gains over
the base, and MEDALIGN over LoRA, on test images. docs/phantom-study.md, "A rule", has the rules and the analysis.
Run it again to continue.

    python benchmarks/alignment_rule.py --out rule
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import medalign
import polars as pl
import torch
from medalign.atomic import write_whole
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.demo.demo import ASSETS, GRID
from medalign.pipeline.demo.make_assets import AssetSizes, PrintedNotes, make_teacher
from medalign.pipeline.extraction.extract import CrewRequest, ExtractionRequest, run_extraction
from medalign.pipeline.extraction.image_sources import ImageRequest
from medalign.pipeline.studies.study_results import DIFFERENCES_FILE
from medalign.progress import Silent
from medalign.student.inspection.token_capture import PIXELS, TEACHER
from study_models import MEDIUM_STEPS, make_random_teacher

SERIES = 31
"""Phantoms that no other study has seen."""
WEIGHTS = "phantom-teacher.safetensors"
STUDENT = ASSETS / "phantom-student"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a run costs."""

    shifts: Sequence[float]
    images: int
    anchors: int
    seeds: int
    labels: int
    align_steps: int
    epochs: float
    medium_steps: int


@dataclass(frozen=True, kw_only=True)
class Regime:
    """What the probes read in one regime, and what training then gained."""

    shift: float
    teacher: str
    readable: float
    """Balanced accuracy of a probe of regions on the teacher's E_v."""
    read: float
    """That of the best stage of the student."""
    missing: float
    """(readable - read) / (readable - floor): the share of what the teacher shows that no stage of the student has."""
    tower_lost: bool
    """Whether the verdict on regions names the tower, compared with the teacher."""
    gains: Mapping[str, tuple[float, float, float]]
    """`align` and `MEDALIGN` -> difference in the mean score of all questions, with its interval over both."""

    def helped(self, arm: str) -> bool:
        return self.gains[arm][1] > 0


def main(out: Path, sizes: Sizes) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    teachers = made_teachers(out, sizes)
    stores = {}
    for shift in sizes.shifts:
        look = phantoms_of(out, sizes, shift)
        for name, weights in teachers.items():
            stores[shift, name] = store_of(out / f"{look.name}-{name}.zarr", look, weights)
    probes = {regime: probed(out, regime, store) for regime, store in stores.items()}
    gains = measured(out, sizes, stores)
    regimes = [found(shift, name, probes[shift, name], gains[shift, name]) for shift, name in stores]
    errors = judged(regimes)
    result = {"sizes": asdict(sizes), "regimes": [asdict(regime) for regime in regimes], "errors": errors}
    write_whole(out / "rule.json", json.dumps(result, indent=1) + "\n")
    show(regimes, errors)


def made_teachers(out: Path, sizes: Sizes) -> dict[str, Path]:
    """The demo's teacher, one that stopped early, and one that never learned."""
    makers: dict[str, Callable[[Path], object]] = {
        "medium": lambda folder: make_teacher(
            folder, replace(AssetSizes(), teacher_steps=sizes.medium_steps), PrintedNotes()
        ),
        "random": make_random_teacher,
    }
    weights = {"good": ASSETS / WEIGHTS}
    for name, make in makers.items():
        folder = out / f"{name}-teacher"
        if not (folder / WEIGHTS).exists():
            folder.mkdir(exist_ok=True)
            make(folder)
        weights[name] = folder / WEIGHTS
    return weights


def phantoms_of(out: Path, sizes: Sizes, shift: float) -> Path:
    folder = out / f"shift-{shift:g}"
    if not folder.exists():
        make_phantoms(folder, sizes.images, SERIES, Silent(), shift=shift, anchors=sizes.anchors)
    return folder


def store_of(path: Path, look: Path, weights: Path) -> Path:
    request = ExtractionRequest(
        teacher="phantom-tiny",
        weights=str(weights),
        out=path,
        images=ImageRequest(manifest=look / "manifest.parquet"),
        crew=CrewRequest(device="cpu"),
        grid=GRID,
        threads=1,
        resume=path.exists(),
    )
    run_extraction(request, Silent())
    return path


def probed(out: Path, regime: tuple[float, str], store: Path) -> Mapping[str, Any]:
    """What `inspect` finds about regions in validation images."""
    shift, name = regime
    folder = out / f"inspection-{shift:g}-{name}"
    if not folder.exists():
        manifest = out / f"shift-{shift:g}" / "manifest.parquet"
        medalign.inspect(
            STUDENT, manifest, folder, store=store, split="validation", shown=1, max_new_tokens=8, template="plain",
            device="cpu",
        )  # fmt: skip
    probes = json.loads((folder / "inspection.json").read_text())["probes"]
    regions: Mapping[str, Any] = next(probe for probe in probes if probe["family"] == "regions")
    return regions


def measured(
    out: Path, sizes: Sizes, stores: Mapping[tuple[float, str], Path]
) -> Mapping[tuple[float, str], Mapping[str, tuple[float, float, float]]]:
    """The study of all regimes; its test questions are read when all runs are done."""
    spec = study_of(out, sizes, stores)
    medalign.study(spec, out / "study", device="cpu", progress=True)
    medalign.study(spec, out / "study", device="cpu", progress=True, read_test=True)
    table = pl.read_parquet(out / "study" / DIFFERENCES_FILE).filter(
        part="test", metric="all_strict", resampling="both"
    )
    return {
        regime: {
            row["arm"]: (row["difference"], row["low"], row["high"])
            for row in table.filter(regime=name_of(*regime)).iter_rows(named=True)
            if (row["arm"], row["against"]) in (("align", "base"), ("MEDALIGN", "LoRA"))
        }
        for regime in stores
    }


def name_of(shift: float, teacher: str) -> str:
    return f"shift {shift:g}, {teacher} teacher"


def study_of(out: Path, sizes: Sizes, stores: Mapping[tuple[float, str], Path]) -> dict[str, Any]:
    """Its settings are those of configs/study/phantoms-short.yaml."""
    steady = {"save_steps": 100000, "logging_steps": 50, "dataloader_num_workers": 0}
    trained = {
        "num_train_epochs": sizes.epochs,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "learning_rate": 0.002,
    }
    pairs = [{"arm": "align", "against": "base"}, {"arm": "MEDALIGN", "against": "LoRA"}]
    return {
        "title": "A rule for alignment",
        "seeds": list(range(sizes.seeds)),
        "metrics": ["all_strict", "open_strict", "closed_strict"],
        "baseline": "LoRA",
        "regimes": [regime_of(out, sizes, shift, name, store) for (shift, name), store in stores.items()],
        "answers": {"batch_size": 64, "max_new_tokens": 8},
        "settings": {
            "train": {
                "alignment": {"layer": 3, "alpha": 0, "beta": 0, "rotation": "none"},
                "lora": {"r": 16, "lora_alpha": 16},
                "training": trained | steady,
            },
            "align": {
                "trainable": {"vision_tower": "full"},
                # A teacher that cannot be translated is a regime too.
                "translation": {"minimum_r2": 0, "minimum_skill": None},
                "report": {"images": 0},
                "training": {"steps": sizes.align_steps, "learning_rate": 0.0005} | steady,
            },
        },
        "arms": [
            {"name": "base"},
            {"name": "align", "align": {}},
            {"name": "LoRA", "train": {}},
            {"name": "MEDALIGN", "train": {"alignment": {"rotation": "full", "alpha": 1, "beta": 0.1}}},
        ],
        "comparisons": [
            pair | {"regime": name_of(shift, name)} for shift, name in stores for pair in pairs
        ],
    }  # fmt: skip


def regime_of(out: Path, sizes: Sizes, shift: float, name: str, store: Path) -> dict[str, Any]:
    manifest = str(out / f"shift-{shift:g}" / "manifest.parquet")
    asked = {"manifest": manifest, "answer_types": ["open", "closed"]}
    return {
        "name": name_of(shift, name),
        "student": str(STUDENT),
        "template": "plain",
        "store": str(store),
        "train": asked | {"split": "train", "labels": sizes.labels, "per_image": 2},
        "develop": asked | {"split": "validation", "per_image": 1, "limit": 60},
        "test": asked | {"split": "test", "per_image": 2},
        "targets": {"manifest": manifest, "split": "train"},
        "anchors": {"manifest": manifest, "split": "anchors"},
    }


def found(
    shift: float, teacher: str, probe: Mapping[str, Any], gains: Mapping[str, tuple[float, float, float]]
) -> Regime:
    scores = dict(probe["stages"])
    floor = scores.pop("position alone")
    readable = scores.pop(TEACHER)
    scores.pop(PIXELS)
    read = max(scores.values())
    tower = next(loss for loss in probe["losses"] if loss["place"] == "tower")
    return Regime(
        shift=shift,
        teacher=teacher,
        readable=readable,
        read=read,
        missing=(readable - read) / max(readable - floor, 1e-6),
        tower_lost=probe["place"] == "tower" and tower["before"] == TEACHER,
        gains=gains,
    )


def judged(regimes: Sequence[Regime]) -> dict[str, dict[str, int]]:
    """Wrong predictions of each rule, for each arm."""
    rules: dict[str, Callable[[Regime, str], bool]] = {
        "always": lambda regime, arm: True,
        "never": lambda regime, arm: False,
        "the verdict names the tower": lambda regime, arm: regime.tower_lost,
        "threshold, of the other looks": lambda regime, arm: regime.missing > threshold(
            [other for other in regimes if other.shift != regime.shift], arm
        ),
    }  # fmt: skip
    return {
        name: {arm: sum(rule(regime, arm) != regime.helped(arm) for regime in regimes) for arm in ("align", "MEDALIGN")}
        for name, rule in rules.items()
    }


def threshold(regimes: Iterable[Regime], arm: str) -> float:
    """The share above which "it helps" is wrong least often; the middle of the largest gap between shares."""
    ordered = sorted(regimes, key=lambda regime: regime.missing)
    shares = [regime.missing for regime in ordered]
    places = [(low + high) / 2 for low, high in pairwise(shares)]
    gaps = [high - low for low, high in pairwise(shares)]
    places, gaps = [shares[0] - 1, *places, shares[-1] + 1], [0.0, *gaps, 0.0]
    wrong = [sum((regime.missing > place) != regime.helped(arm) for regime in ordered) for place in places]
    return min(zip(wrong, (-gap for gap in gaps), places, strict=True))[2]


def show(regimes: Sequence[Regime], errors: Mapping[str, Mapping[str, int]]) -> None:
    print("shift  teacher  E_v    student  missing  tower named  align - base              MEDALIGN - LoRA")
    for regime in regimes:
        gains = "  ".join(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in regime.gains.values())
        named = "yes" if regime.tower_lost else "no"
        print(
            f"{regime.shift:5g}  {regime.teacher:7}  {regime.readable:.3f}  {regime.read:.3f}    {regime.missing:+.2f}"
            f"    {named:11}  {gains}"
        )
    for name, wrong in errors.items():
        print(f"{name}: wrong in {wrong['align']} (align) and {wrong['MEDALIGN']} (MEDALIGN) of {len(regimes)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of data, stores, inspections and the study")
    parser.add_argument("--shifts", type=float, nargs="+", default=[0, 0.2, 0.45, 0.7, 1])
    parser.add_argument("--images", type=int, default=1200, help="phantoms of a look, besides its anchors")
    parser.add_argument("--anchors", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--align-steps", type=int, default=120)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--medium-steps", type=int, default=MEDIUM_STEPS)
    arguments = vars(parser.parse_args())
    main(arguments.pop("out"), Sizes(**arguments))

"""Does alignment help while the base itself is trained, and not only when LoRA is?

Projector and language model of the demo's student learn from scratch, on the answers to all questions about phantoms
of both looks, with the frozen tower of the demo, which reads one look badly. Three arms: the answers alone; with L_vis;
with L_vis and L_att. Targets are those of the demo's teacher, which reads both looks. There is no W: the losses form
the features themselves. Each seed has its own initial values and order. The test questions are about phantoms of
another series, of both looks. docs/phantom-study.md, "While the base is trained". Run it again to continue.

    python benchmarks/aligned_base.py --out base
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import medalign
import polars as pl
import torch
from jaxtyping import Float, Int
from medalign.atomic import write_whole
from medalign.pipeline.data.manifest_images import question_groups
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.demo.corpus import Corpus, draw_corpus, joined
from medalign.pipeline.demo.demo import ASSETS
from medalign.pipeline.demo.make_assets import SHIFT, PrintedNotes
from medalign.pipeline.demo.pretrain_student import tokenize, tower_features, train_language
from medalign.pipeline.demo.question_packing import PackedRows, Turn, answer_losses, pack
from medalign.pipeline.studies.paired_seeds import Resampling, seed_difference, seed_value
from medalign.pipeline.studies.study_metrics import metric_result
from medalign.progress import Silent
from medalign.student.alignment.aligned_student import AlignedStudent
from medalign.student.alignment.losses import attention_alignment_loss, visual_alignment_loss
from medalign.student.compat.transformers import encoded_images
from medalign.student.inputs.image_processing import CLIP_MEAN, CLIP_STD
from medalign.student.inputs.spans import IGNORED_LABEL, ImageSpans, TextRows, pad_rows
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store.format.profiles import decode
from medalign.teacher_cache.teachers.teacher_loading import load_teacher
from torch import Tensor
from transformers import AutoTokenizer, LlavaForConditionalGeneration, PreTrainedTokenizerFast

TRAINING_SERIES, TEST_SERIES = 41, 42
STUDENT, TEACHER = ASSETS / "phantom-student", ASSETS / "phantom-teacher.safetensors"
LOOKS = {"without a shift": 0.0, "with a shift": SHIFT}
METRICS = ("all_strict", "open_strict", "closed_strict")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a run costs."""

    images: int
    """Training phantoms of each look."""
    steps: int
    seeds: int
    test_images: int
    """Phantoms of each look in the test series; a part of them is its test split."""
    layer: int


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of L_vis and L_att."""

    alpha: float
    beta: float


ARMS = {
    "answers alone": Weights(alpha=0, beta=0),
    "with L_vis": Weights(alpha=1, beta=0),
    "with L_vis and L_att": Weights(alpha=1, beta=0.1),
}


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What all arms learn from: P phantoms, N patches."""

    turns: Sequence[Sequence[Turn]]
    features: Float[Tensor, "phantoms patches width"]
    """Outputs of the frozen tower."""
    E_v: Float[Tensor, "phantoms patches channels"]
    E_a: Float[Tensor, "phantoms patches"]


def main(out: Path, sizes: Sizes) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(STUDENT)
    wanted = {(arm, seed): out / f"{arm.replace(' ', '-')}-{seed}" for seed in range(sizes.seeds) for arm in ARMS}
    if not all((folder / "losses.json").exists() for folder in wanted.values()):
        lessons = lessons_of(tokenizer, sizes)
        for (arm, seed), folder in wanted.items():
            if not (folder / "losses.json").exists():
                train_base(folder, tokenizer, lessons, ARMS[arm], seed, sizes)
    answers = {
        look: {arm: [answered(out, wanted[arm, seed], look, sizes) for seed in range(sizes.seeds)] for arm in ARMS}
        for look in LOOKS
    }
    result = {"sizes": asdict(sizes), "arms": {name: asdict(arm) for name, arm in ARMS.items()}}
    result |= {"losses": {f.name: json.loads((f / "losses.json").read_text()) for f in wanted.values()}}
    result |= {"results": {look: compared(of_arm) for look, of_arm in answers.items()}}
    write_whole(out / "base.json", json.dumps(result, indent=1) + "\n")
    show(result["results"])


def lessons_of(tokenizer: PreTrainedTokenizerFast, sizes: Sizes) -> Lessons:
    corpus = joined(*(drawn(sizes.images, first, shift) for first, shift in enumerate(LOOKS.values())))
    model = LlavaForConditionalGeneration.from_pretrained(STUDENT, dtype=torch.float32)
    E_v, E_a = targets(corpus.pixels, patch_grid(model))
    return Lessons(
        turns=[tokenize(tokenizer, asked) for asked in corpus.questions],
        features=tower_features(model, corpus.pixels),
        E_v=E_v,
        E_a=E_a,
    )


def drawn(images: int, number: int, shift: float) -> Corpus:
    return draw_corpus(TRAINING_SERIES, images, CLIP_MEAN, CLIP_STD, Silent(), first=number * images, shift=shift)


def patch_grid(model: LlavaForConditionalGeneration) -> PatchGrid:
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size
    return PatchGrid(side, side)


def targets(pixels: Float[Tensor, "phantoms 3 side side"], grid: PatchGrid) -> tuple[Tensor, Tensor]:
    """E_v and E_a on the student's grid, as a store of profile float32 has them."""
    teacher = load_teacher("phantom-tiny", TEACHER)
    outputs = [teacher.forward(part) for part in pixels.split(100)]
    arrays = {
        "E_v": torch.cat([output.patches for output in outputs]).numpy(),
        "E_a": torch.cat([output.attention for output in outputs]).numpy(),
    }
    rows = decode("float32", arrays, teacher.spec.grid, grid)
    return torch.as_tensor(rows.E_v), torch.as_tensor(rows.E_a)


def train_base(
    folder: Path, tokenizer: PreTrainedTokenizerFast, lessons: Lessons, arm: Weights, seed: int, sizes: Sizes
) -> None:
    """A base with the demo's tower and a new projector and language model; `losses.json` is written last."""
    model = new_base(seed)
    student = AlignedStudent(model, layers=[sizes.layer], rotation="none", patches=lessons.E_a.shape[1])
    last: dict[str, float] = {}

    def losses(chosen: Int[Tensor, " chosen"]) -> tuple[Tensor, Tensor]:
        per_token, per_answer, vis, att = aligned_losses(student, lessons, chosen)
        last.update(answers=per_token.item(), vis=vis.item(), att=att.item())
        return per_token, per_answer + arm.alpha * vis + arm.beta * att

    train_language(model, losses, len(lessons.turns), steps=sizes.steps, seed=seed, progress=PrintedNotes())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_whole(folder / "preprocessor_config.json", (STUDENT / "preprocessor_config.json").read_text())
    write_whole(folder / "losses.json", json.dumps(last) + "\n")


def new_base(seed: int) -> LlavaForConditionalGeneration:
    trained = LlavaForConditionalGeneration.from_pretrained(STUDENT, dtype=torch.float32)
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(trained.config)
    model.model.vision_tower.load_state_dict(trained.model.vision_tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


def aligned_losses(
    student: AlignedStudent, lessons: Lessons, chosen: Int[Tensor, " chosen"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both answer losses of `answer_losses`, and the means of L_vis and L_att over the chosen images."""
    model, point = student.stock, student.points[0].layer
    rows = pack([lessons.turns[int(index)] for index in chosen], student.patches, model.config)
    with student.observe(image_spans(rows, student), question_tokens(rows)) as seen:
        hidden = model.model(
            input_ids=rows.ids,
            attention_mask=rows.visible(),
            position_ids=rows.positions,
            use_cache=False,
            **encoded_images(model.model.multi_modal_projector(lessons.features[chosen])),
        ).last_hidden_state
    vis = visual_alignment_loss(cosine_matrix(seen.tokens_at(point)), cosine_matrix(lessons.E_v[chosen]))
    att = attention_alignment_loss(seen.attention_at(point), lessons.E_a[chosen], student.attention_normalization)
    return *answer_losses(model, hidden, rows), vis.mean(), att.mean()


def image_spans(rows: PackedRows, student: AlignedStudent) -> ImageSpans:
    images = len(rows.ids)
    positions = torch.arange(1, 1 + student.patches).expand(images, -1)
    return ImageSpans(sample=torch.arange(images), positions=positions)


def question_tokens(rows: PackedRows) -> TextRows:
    """The tokens of all questions about an image."""
    return pad_rows((rows.turn >= 0) & (rows.labels == IGNORED_LABEL))


def answered(out: Path, base: Path, look: str, sizes: Sizes) -> pl.DataFrame:
    """A base's scored answers to the test questions of a look."""
    images, folder = out / look.replace(" ", "-"), base / f"answers-{look.replace(' ', '-')}"
    if not images.exists():
        make_phantoms(images, sizes.test_images, TEST_SERIES, Silent(), shift=LOOKS[look])
    if not (folder / "metrics.json").exists():
        medalign.evaluate(
            base, images / "manifest.parquet", folder, template="plain", batch_size=64, max_new_tokens=8, device="cpu",
            resume=folder.exists(),
        )  # fmt: skip
    return pl.read_parquet(folder / "predictions.parquet").filter(pl.col("strict_kind").is_in(["open", "closed"]))


def compared(of_arm: Mapping[str, Sequence[pl.DataFrame]]) -> dict[str, Any]:
    """Values of each arm, and differences from the first, with intervals of 95 %."""
    resampling = Resampling(seed=0, resamples=2000)
    results = {
        (arm, metric): [metric_result(frame, metric) for frame in frames]
        for arm, frames in of_arm.items()
        for metric in METRICS
    }
    first, *others = of_arm
    frame = of_arm[first][0]
    images = question_groups(frame["image_hashes"], frame["question_id"])
    values = {f"{arm}, {metric}": seed_value(found, resampling) for (arm, metric), found in results.items()}
    gaps = {
        f"{arm} - {first}, {metric}": seed_difference(results[first, metric], results[arm, metric], images, resampling)
        for arm in others
        for metric in METRICS
    }
    return {
        "values": {name: asdict(value) for name, value in values.items() if value is not None},
        "differences": {name: asdict(gap) for name, gap in gaps.items() if gap is not None},
    }


def show(results: Mapping[str, Any]) -> None:
    for look, found in results.items():
        print(look)
        for name, value in found["values"].items():
            print(f"  {name}: {value['value']:.3f} (spread {value['spread'] or 0:.3f})")
        for name, gap in found["differences"].items():
            intervals = [f"{how} [{gap[how]['low']:+.3f}, {gap[how]['high']:+.3f}]" for how in ("seeds", "both")]
            print(f"  {name}: {gap['both']['mean']:+.3f}, {', '.join(intervals)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the bases, the phantoms and the answers")
    parser.add_argument("--images", type=int, default=2500, help="training phantoms of each look")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-images", type=int, default=1800, help="phantoms of each look in the test series")
    parser.add_argument("--layer", type=int, default=3)
    arguments = vars(parser.parse_args())
    main(arguments.pop("out"), Sizes(**arguments))

"""The presets `released` and `paper` on original checkpoints, compared with the same equations in plain loops.

The settings go the whole way, through the plan and one training step, and what the step logs is compared with a version
that shares no code with ours: prompts written out, tokens from the checkpoint's own tokenizer, eager attention in every
layer, Eqs. 3 to 7 value by value.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from labs import hashes_of, plan_with_weights
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.training import train
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.training_plan import TrainingPlan
from medalign.progress import Silent
from medalign.student.inputs.collation import Collator, encode_text
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.images import image_hash
from medalign.teacher_cache.store import open_store
from originals import Original, write_original
from PIL import Image
from stores import pixels_of, write_store
from straight_llava import IMAGE, Seen, straight_forward
from students import write_images
from tokenizers import Tokenizer
from torch import Tensor

LAYER, RANK, SCALE = 1, 2, 16 / 2
WEIGHTS = {"llava-med": (0.1, 0.06), "huatuo": (1.0, 0.03)}
"""Alpha and beta of the paper's runs."""
TEMPLATES = {"llava-med": "vicuna_v1", "huatuo": "huatuo_v1"}
STARTS = {"llava-med": 34, "huatuo": 33}
GEOMETRIES = {"released": "crop", "paper": "pad"}
ASKED = [
    ("What is it?", "effusion"),
    ("Which side?", "left: no lung, right: a lung"),
    ("Is it A: yes or B: no?", "The lung."),
]
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
ROLES = {"llava-med": ("USER", "ASSISTANT"), "huatuo": ("<|user|>", "<|assistant|>")}
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module", params=["llava-med", "huatuo"])
def lab(request, tmp_path_factory):
    """A tiny original checkpoint, three questions on three images, and a store of each geometry."""
    folder = tmp_path_factory.mktemp(request.param)
    original = write_original(folder / "model", request.param, tower_apart=request.param == "huatuo", shards=2)
    paths = write_images(folder / "images", [(24, 24), (24, 16), (18, 24)])
    rows = [
        ManifestRow(
            image=path.name,
            image_hash=image_hash(path.read_bytes()),
            pixel_hash=pixels_of(number),
            width=24,
            height=24,
            question_id=str(number),
            question=question,
            answer=answer,
            split="train",
            data_use="public",
        )
        for number, (path, (question, answer)) in enumerate(zip(paths, ASKED, strict=True))
    ]
    Manifest.from_rows(rows, folder / "images", "noise").write(folder / "manifest.parquet")
    for geometry in GEOMETRIES.values():
        write_store(
            folder / f"{geometry}.zarr", range(3), hashes=hashes_of(paths), grid=PatchGrid(3, 3), geometry=geometry
        )
    return request.param, folder, original


def settings_of(family: str, folder: Path, preset: str) -> Settings:
    alpha, beta = WEIGHTS[family]
    return Settings.model_validate(
        {
            "student": {"path": folder / "model", "template": TEMPLATES[family]},
            "data": {"manifest": folder / "manifest.parquet", "store": str(folder / f"{GEOMETRIES[preset]}.zarr")},
            "alignment": {"preset": preset, "layer": LAYER, "alpha": alpha, "beta": beta},
            "lora": {"r": RANK, "lora_alpha": 16, "lora_dropout": 0.0},
            "training": {"max_steps": 1, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 1,
                         "logging_steps": 1, "dataloader_num_workers": 0, "device": "cpu"},
        }
    )  # fmt: skip


# --- reference implementation --------------------------------------------------------------------------------------


def straight_tensors(plan: TrainingPlan, original: Original) -> tuple[dict[str, Tensor], Tensor]:
    """The checkpoint's tensors with LoRA added, and W."""
    trained = {name: value.detach().clone() for name, value in plan.student.model.named_parameters() if "lora_" in name}
    tensors = dict(original.tensors)
    for name, B in trained.items():
        if "lora_B" in name:
            of = name.partition(".language_model.")[2].partition(".lora_B")[0]
            tensors[f"model.{of}.weight"] = (
                tensors[f"model.{of}.weight"] + SCALE * B @ trained[name.replace("lora_B", "lora_A")]
            )
    return tensors, plan.student.model.rotations[LAYER].weight.detach().clone()


def straight_ids(family: str, original: Original, question: str, answer: str) -> tuple[list[int], int]:
    """The sample's tokens as in the released code: the text before and after the image, each tokenized in one piece.

    IMAGE stands for the image; with it the number of tokens behind it that are the question's.
    """
    user, assistant = ROLES[family]
    before, asked = f"{SYSTEM}{user}: ", f"\n{question} {assistant}:"
    if family == "llava-med":
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(original.folder / "tokenizer.model"))
        encode, begin, end = pieces.encode, [pieces.bos_id()], pieces.eos_id()
    else:
        tokenizer = Tokenizer.from_file(str(original.folder / "tokenizer.json"))
        begin, end = [], tokenizer.token_to_id("<|endoftext|>")

        def encode(text: str) -> list[int]:
            return tokenizer.encode(text, add_special_tokens=False).ids

    rest = encode(f"{asked} {answer}")
    rows = len(encode(asked))
    assert rest[:rows] == encode(asked)
    return [*begin, *encode(before), IMAGE, *rest, end], rows


def straight_pixels(path: Path) -> Tensor:
    """[3, 24, 24]: centered in a square of the mean color, normalized; the longer side is already 24."""
    image = Image.open(path)
    square = Image.new("RGB", (24, 24), tuple(int(value * 255) for value in MEAN))
    square.paste(image, ((24 - image.width) // 2, (24 - image.height) // 2))
    values = torch.from_numpy(np.array(square)).float() / 255
    return ((values - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)


def straight_answer_loss(seen: Seen, ids: list[int], answer_tokens: int) -> list[float]:
    """Eq. 6: -log p of every token of the answer and of the end of the sequence."""
    rows = seen.logits.double().log_softmax(dim=-1)
    return [-float(rows[len(rows) - answer_tokens + place - 1, ids[place - answer_tokens]]) for place in
            range(answer_tokens)]  # fmt: skip


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def straight_visual_loss(seen: Seen, E_v: Tensor) -> float:
    """Eqs. 3 and 4."""
    ours, theirs = seen.tokens.tolist(), E_v.tolist()
    gaps = [
        (cosine(theirs[i], theirs[j]) - cosine(ours[i], ours[j])) ** 2
        for i in range(len(ours))
        for j in range(len(ours))
    ]
    return sum(gaps) / len(gaps)


def straight_map(seen: Seen, rows: int) -> list[float]:
    """M_a: mean over heads and over the first `rows` tokens after the image."""
    first = int(seen.is_image.nonzero()[-1]) + 1
    places = seen.is_image.nonzero()[:, 0].tolist()
    weights = seen.attention.tolist()
    return [
        sum(head[row][place] for head in weights for row in range(first, first + rows)) / (len(weights) * rows)
        for place in places
    ]


def straight_attention_loss(M_a: list[float], E_a: list[float], preset: str) -> float:
    """Eq. 5 as printed, with a softmax of both maps; or as released, with L2-normalized maps, divided by N."""

    def normalized(values: list[float]) -> list[float]:
        if preset == "paper":
            total = sum(math.exp(value) for value in values)
            return [math.exp(value) / total for value in values]
        norm = math.sqrt(sum(value * value for value in values))
        return [value / norm for value in values]

    p, t = normalized(M_a), normalized(E_a)
    total = sum(b * (math.log(b) - math.log(a)) for a, b in zip(p, t, strict=True))
    return total if preset == "paper" else total / len(p)


def straight_losses(plan: TrainingPlan, family: str, folder: Path, original: Original, preset: str) -> dict[str, float]:
    """Expected log of the first step."""
    tensors, W = straight_tensors(plan, original)
    assert W.abs().max() > 0.1
    store = open_store(str(folder / f"{GEOMETRIES[preset]}.zarr"))
    targets = store.read([image_hash((folder / "images" / f"{n}.png").read_bytes()) for n in range(3)], [None] * 3)
    answer, visual, attention = [], [], []
    for number, (question, reference) in enumerate(ASKED):
        ids, rows = straight_ids(family, original, question, reference)
        assert ids.index(IMAGE) == STARTS[family]
        pixels = straight_pixels(folder / "images" / f"{number}.png")
        seen = straight_forward(tensors, original.shape, ids, pixels[None], W, LAYER)
        answer += straight_answer_loss(seen, ids, len(ids) - ids.index(IMAGE) - 1 - rows)
        visual.append(straight_visual_loss(seen, targets.E_v[number]))
        attention.append(straight_attention_loss(straight_map(seen, rows), targets.E_a[number].tolist(), preset))
    found = {"loss_lm": answer, "loss_vis": visual, "loss_att": attention}
    means = {name: sum(values) / len(values) for name, values in found.items()}
    alpha, beta = WEIGHTS[family]
    return means | {"loss": means["loss_lm"] + alpha * means["loss_vis"] + beta * means["loss_att"]}


# --- comparison ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["released", "paper"])
def test_the_first_step_logs_the_losses_of_the_reference_implementation(lab, tmp_path, monkeypatch, preset):
    family, folder, original = lab
    plans = []

    def plan(settings: Settings) -> TrainingPlan:
        plans.append(plan_with_weights(settings, scale=0.1))
        expected.update(straight_losses(plans[0], family, folder, original, preset))
        return plans[0]

    expected: dict[str, float] = {}
    monkeypatch.setattr(train, "plan_training", plan)
    train.run_training(settings_of(family, folder, preset), tmp_path / "run", Silent())
    logged = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value, abs=1e-5), name
    for number, sample in enumerate(plans[0].samples):
        ids, _ = encode_text(plans[0].student, sample, with_answer=True)
        assert ids.index(plans[0].student.model.image_token_id) == STARTS[family], number


def of_answer(plan: TrainingPlan, answer: str) -> tuple[Tensor, Tensor]:
    """L_vis and L_att of the first question with a different answer."""
    (encoded,) = plan.train.__getitems__([0])
    text = encode_text(plan.student, replace(plan.samples[0], answer=answer), with_answer=True)
    batch = Collator(pad_token_id=0)([replace(encoded, input_ids=torch.tensor(text[0]), labels=torch.tensor(text[1]))])
    output = plan.student.model(**batch)
    return output.loss_vis, output.loss_att


@pytest.mark.parametrize("preset", ["released", "paper"])
def test_a_colon_in_the_answer_changes_nothing(lab, preset):
    """The released code searches for the last ':' in the sample, and then takes part of the answer as the question."""
    family, folder, original = lab
    plan = plan_with_weights(settings_of(family, folder, preset), scale=0.1)
    with_colon, without = of_answer(plan, "left: no lung"), of_answer(plan, "left; no lung")
    for value, same in zip(with_colon, without, strict=True):
        torch.testing.assert_close(value, same, atol=1e-6, rtol=0)
    tensors, W = straight_tensors(plan, original)
    ids, rows = straight_ids(family, original, ASKED[0][0], "left: no lung")
    seen = straight_forward(tensors, original.shape, ids, straight_pixels(folder / "images" / "0.png")[None], W, LAYER)
    exact = straight_map(seen, rows)
    up_to_colon, _ = straight_ids(family, original, ASKED[0][0], "left:")
    swallowed = straight_map(seen, len(up_to_colon) - up_to_colon.index(IMAGE) - 2)
    assert max(abs(a - b) for a, b in zip(exact, swallowed, strict=True)) > 1e-3, "the trap is there"
    E_a = plan.train.__getitems__([0])[0].E_a[0].tolist()
    assert with_colon[1].item() == pytest.approx(straight_attention_loss(exact, E_a, preset), abs=1e-5)

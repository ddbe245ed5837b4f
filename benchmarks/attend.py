"""What it costs to read where a student looks, over a plain forward pass, and by eager attention instead.

    python benchmarks/attend.py [--student DIR] [--questions 12 40] [--rounds 5] [--dtype float32] [--json]

Without `--student`, a random Llava with 576 image tokens and a language model of SmolLM2-135M's shape (30 layers of
width 576, 9 heads, 3 of keys) is built in memory. Pixels and question tokens are random; batch one, as
`medalign student attend`. Three contestants take turns in one process, in turned order every other round:

    prefill   one forward pass over image and question on sdpa attention
    attend    the same pass, with the question's rows of every layer computed beside sdpa
    eager     the same pass with eager attention and all its weights returned (`output_attentions=True`), of which the
              same rows are picked

Time is processor time where there is no CUDA: the median over rounds, and of the ratio to `prefill` in the same round.
Memory is the most that a contestant allocates beyond what is there before it, from the profiler's record of allocations
(on CUDA from its allocator). Every run checks that `attend` and `eager` find the same attention.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from medalign.student.alignment.aligned_student import AlignedStudent
from medalign.student.folders.init_parts import tiny_tower
from medalign.student.inspection.question_attention import attention_of_layers, find_questions
from medalign.student.loading.student_loading import open_student
from peak_memory import peak_bytes
from torch import Tensor
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

START = 4
"""Tokens before the image."""
IMAGE_TOKENS = 576

Contestant = Callable[[], Tensor]


def random_student() -> AlignedStudent:
    """A Llava with SmolLM2-135M's shape and a small tower."""
    torch.manual_seed(0)
    text = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49153,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    config = LlavaConfig(
        vision_config=tiny_tower(IMAGE_TOKENS).config,
        text_config=text,
        image_token_id=49152,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    llava = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in llava.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(4)  # else attention is nearly uniform
    return AlignedStudent(llava, layers=(), rotation="none", patches=IMAGE_TOKENS)


def load(folder: Path | None, dtype: str, device: str) -> AlignedStudent:
    model = random_student() if folder is None else open_student(folder, layers=(), rotation="none").model
    return model.to(device, getattr(torch, dtype)).eval()


def make_contestants(model: AlignedStudent, eager: AlignedStudent, question: int) -> dict[str, Contestant]:
    """By name; each returns the attention [layers, image tokens] of the same question, `prefill` nothing."""
    torch.manual_seed(0)
    patches, side = model.patches, model.config.vision_config.image_size
    ids = torch.randint(10, 1000, (1, START + patches + question))
    ids[:, START : START + patches] = model.image_token_id
    mask = torch.ones_like(ids)
    inputs = {
        "input_ids": ids.to(model.device),
        "attention_mask": mask.to(model.device),
        "pixel_values": torch.randn(1, 3, side, side).to(next(model.parameters())),
    }

    def prefill() -> Tensor:
        model.llava(**inputs, logits_to_keep=1, use_cache=False)
        return torch.empty(0)

    def attend() -> Tensor:
        return attention_of_layers(model, *inputs.values(), find_questions(model, ids, mask))[0]

    def by_eager_attention() -> Tensor:
        output = eager.llava(**inputs, logits_to_keep=1, use_cache=False, output_attentions=True)
        rows, columns = slice(START + patches, None), slice(START, START + patches)
        return torch.stack([weights[0, :, rows, columns].float().mean(dim=(0, 1)) for weights in output.attentions])

    return {"prefill": prefill, "attend": attend, "eager": by_eager_attention}


def seconds(contestant: Contestant) -> float:
    """Wall time on CUDA; on the CPU processor time of this process, in which other load counts for little."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    contestant()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


@torch.inference_mode()
def compare(contestants: dict[str, Contestant], rounds: int, tolerance: float) -> dict[str, dict[str, object]]:
    maps = {name: contestants[name]() for name in ("attend", "eager")}  # also warms up
    torch.testing.assert_close(maps["attend"], maps["eager"], rtol=tolerance, atol=1e-5)
    assert maps["eager"].max() > 2 * maps["eager"].mean(), "attention is uniform, so the comparison says nothing"
    memory = {name: peak_bytes(contestant) for name, contestant in contestants.items()}
    orders = [list(contestants), list(reversed(contestants))]
    taken = [{name: seconds(contestants[name]) for name in orders[number % 2]} for number in range(rounds)]
    ratios = {name: [times[name] / times["prefill"] for times in taken] for name in contestants}
    return {
        name: {
            "seconds": statistics.median(times[name] for times in taken),
            "ratio": statistics.median(ratios[name]),
            "ratios": ratios[name],
            "peak_mb": memory[name] / 1e6,
            "memory_ratio": memory[name] / memory["prefill"],
        }
        for name in contestants
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, help="Any transformers Llava folder.")
    parser.add_argument("--questions", type=int, nargs="+", default=[12, 40], help="Tokens of a question.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = load(options.student, options.dtype, options.device)
    eager = copy.deepcopy(model)
    eager.llava.set_attn_implementation("eager")
    tolerance = 1e-3 if options.dtype == "float32" else 0.1
    results = {
        question: compare(make_contestants(model, eager, question), options.rounds, tolerance)
        for question in options.questions
    }
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for question, contestants in results.items():
        print(
            f"{model.patches} image tokens, a question of {question}, {options.dtype}, "
            f"{torch.get_num_threads()} threads, {options.rounds} rounds"
        )
        for name, values in contestants.items():
            spread = f"{min(values['ratios']):.2f} to {max(values['ratios']):.2f}"
            print(
                f"  {name:8} {values['seconds']:7.3f} s  x{values['ratio']:.3f} ({spread})"
                f"  peak {values['peak_mb']:7.1f} MB x{values['memory_ratio']:.3f}"
            )


if __name__ == "__main__":
    main()

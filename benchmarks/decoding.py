"""What each decoding method costs beside greedy decoding: time, forward passes, memory.

    python benchmarks/decoding.py --student DIR [--batch 8] [--question 32] [--tokens 32] [--rounds 3] [--only NAME ...]
                                   [--lora-rank 16]

`--student` is any transformers Llava folder (`medalign student init` makes one). Pixels and questions are random, every
answer has exactly `--tokens` tokens (ending one is forbidden), settings are the methods' defaults where the student
allows them. All contestants take turns in one process; time (processor time where there is no CUDA) is the median over
rounds of the ratio to `greedy` in the same round, from images to tokens: vision tower, prompts, answers. Besides the
methods:

    pai, attention part   PAI's branch with raised image columns alone, without the branch that it is contrasted with
    prefill               reading the prompts once, with the vision tower
    avisc, prefill        the same with the last query's attention kept in every layer; its ratio is to `prefill`

With `--lora-rank` the student has random LoRA on every linear layer of its language model, merged into the weights as
`load_student` does, and each contestant has a twin `NAME, LoRA apart` (`--keep-lora-apart`), whose ratio is to the
merged one.

Memory is the most that a contestant allocates beyond what is there before it, from the profiler's record of allocations
(on CUDA from its allocator).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from medalign.errors import SettingsError
from medalign.student.adapters.adapter_folder import add_lora
from medalign.student.decoding import Decoding, choose_decoding, decodings
from medalign.student.decoding.core.batch_run import Run
from medalign.student.decoding.core.cost import Cost
from medalign.student.decoding.core.prompt import Prompt
from medalign.student.decoding.core.scorer import Branches
from medalign.student.decoding.core.search import follow, likeliest
from medalign.student.decoding.methods.avisc import image_attention
from medalign.student.decoding.methods.pai import PaiSettings, amplifier
from medalign.student.inputs.spans import find_images
from medalign.student.loading.lora_merging import merge_for_inference
from medalign.student.loading.student_loading import Student, open_student
from peak_memory import peak_bytes

Contestant = Callable[[], Run]
APART = ", LoRA apart"


def make_run(student: Student, pixels: torch.Tensor, ids: torch.Tensor, tokens: int) -> Run:
    """A batch with one image a question, its image tokens computed."""
    images = find_images(ids, student.model.image_token_id, student.model.patches)
    prompt = Prompt(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        images=images,
        image_tokens=student.model.image_tokens(pixels),
    )
    return Run(
        student=student,
        prompt=prompt,
        pixel_values=pixels,
        question_ids=tuple(map(str, range(len(ids)))),
        max_new_tokens=tokens,
        cost=Cost(len(ids), student.model.device),
    )


def make_contestants(
    student: Student, batch: int, question: int, tokens: int, only: Sequence[str]
) -> dict[str, Contestant]:
    """By name; each answers the same batch from its pixels."""
    patches, size = student.model.patches, student.images.size
    ids = torch.randint(10, student.model.config.text_config.vocab_size // 2, (batch, 4 + patches + question))
    ids[:, 4 : 4 + patches] = student.model.image_token_id
    ids = ids.to(student.model.device)
    pixels = torch.randn(batch, 3, size, size).to(next(student.model.parameters()))

    def by(method: Decoding) -> Contestant:
        def answer() -> Run:
            run = make_run(student, pixels, ids, tokens)
            assert method.method.answer(run, method.settings).shape[1] >= tokens
            return run

        return answer

    def attention_part() -> Run:
        run = make_run(student, pixels, ids, tokens)
        follow(run, Branches([run.branch(hooks=[amplifier(run, PaiSettings())])]), likeliest)
        return run

    def prefill() -> Run:
        run = make_run(student, pixels, ids, 1)
        _ = run.branch().logits
        return run

    def avisc_prefill() -> Run:
        run = make_run(student, pixels, ids, 1)
        image_attention(run.branch())
        return run

    methods = {name: by(choose_decoding(name, max_new_tokens=tokens)) for name in decodings()}
    parts = {"pai, attention part": attention_part, "prefill": prefill, "avisc, prefill": avisc_prefill}
    found = {**methods, **parts}
    return {name: found[name] for name in found if not only or name in only or name in ("greedy", "prefill")}


def load(folder: Path, dtype: str, device: str, lora_rank: int, *, merged: bool) -> Student:
    """The base, with the same random LoRA each time where it has one; ending an answer is forbidden."""
    student = open_student(folder, layers=(), rotation="none", dtype=dtype)
    if lora_rank:
        torch.manual_seed(1)
        add_lora(student.model, base=folder, rank=lora_rank, alpha=2 * lora_rank, dropout=0.0)
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.01)
    if merged:
        merge_for_inference(student.model)
    student.model.to(device).eval()
    generation = student.model.stock.generation_config
    generation.suppress_tokens = [*(generation.suppress_tokens or ()), *student.end_tokens]
    return student


def seconds(contestant: Contestant) -> float:
    """Wall time on CUDA; on the CPU processor time of this process, in which other load counts for little."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    contestant()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


def baseline_of(name: str) -> str:
    """The contestant that another one's time is a ratio to."""
    if name.endswith(APART):
        return name.removesuffix(APART)
    return "prefill" if name == "avisc, prefill" else "greedy"


@torch.inference_mode()
def compare(contestants: dict[str, Contestant], rounds: int, report: Callable[[str], None]) -> dict[str, object]:
    passes, memory, refused = {}, {}, {}
    for name, contestant in contestants.items():  # the first pass also warms up
        try:
            passes[name] = statistics.mean(contestant().cost.forwards.tolist())
        except SettingsError as error:
            refused[name] = str(error)
            continue
        memory[name] = peak_bytes(contestant)
        report(f"{name}: {passes[name]:.0f} passes, {memory[name] / 1e6:.1f} MB")
    taken = []
    for number in range(rounds):
        taken.append({name: seconds(contestants[name]) for name in passes})
        report(f"round {number + 1} of {rounds}: greedy {taken[-1]['greedy']:.2f} s")
    baseline = {name: baseline_of(name) for name in passes}
    return {
        name: {
            "seconds": statistics.median(times[name] for times in taken),
            "ratio": statistics.median(times[name] / times[baseline[name]] for times in taken),
            "ratios": [times[name] / times[baseline[name]] for times in taken],
            "ratio_to": baseline[name],
            "passes": passes[name],
            "peak_mb": memory[name] / 1e6,
            "memory_ratio": memory[name] / memory[baseline[name]],
        }
        for name in passes
    } | {name: {"refused": reason} for name, reason in refused.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--question", type=int, default=32, help="Tokens of a question.")
    parser.add_argument("--tokens", type=int, default=32, help="Tokens of an answer.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], help="These contestants, beside greedy and prefill.")
    parser.add_argument("--lora-rank", type=int, default=0, help="Rank of random LoRA; 0: none.")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    contestants: dict[str, Contestant] = {}
    for merged in (True, False) if asked.lora_rank else (True,):
        student = load(asked.student, asked.dtype, asked.device, asked.lora_rank, merged=merged)
        torch.manual_seed(0)
        found = make_contestants(student, asked.batch, asked.question, asked.tokens, asked.only)
        contestants |= {name if merged else f"{name}{APART}": contestant for name, contestant in found.items()}
    found = compare(contestants, asked.rounds, (lambda text: None) if asked.json else print)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{student.model.patches} image tokens and {asked.question} of text, batch {asked.batch}, {asked.tokens} tokens"
        f" answered, {asked.dtype}, {torch.get_num_threads()} threads, {asked.rounds} rounds"
    )
    for name, values in found.items():
        if "refused" in values:
            print(f"  {name:32} {values['refused']}")
            continue
        spread = f"{min(values['ratios']):.2f} to {max(values['ratios']):.2f}"
        print(
            f"  {name:32} {values['seconds']:8.2f} s  x{values['ratio']:5.2f} ({spread}) of {values['ratio_to']:7}"
            f"  {values['passes']:5.0f} passes  peak {values['peak_mb']:7.1f} MB x{values['memory_ratio']:.2f}"
        )


if __name__ == "__main__":
    main()

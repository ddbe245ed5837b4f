"""Searches over a scorer: the most likely token at each step, or sampling. B samples, T tokens, V vocabulary."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...transfer import to_device
from .batch_run import Run
from .beams import beam_search
from .scorer import Scorer, check_scores
from .shared_settings import SearchSettings

Choose = Callable[[Float[Tensor, "batch vocab"]], Int[Tensor, " batch"]]


def search(run: Run, scorer: Scorer, settings: SearchSettings) -> Int[Tensor, "batch tokens"]:
    """Generate answers with the search in a method's common settings."""
    if settings.num_beams > 1:
        return beam_search(run, scorer, settings.num_beams)
    if settings.temperature == 0:
        return follow(run, scorer, likeliest)
    return follow(run, scorer, sampler(run, settings.temperature, settings.top_p, settings.seed))


def follow(run: Run, scorer: Scorer, choose: Choose) -> Int[Tensor, "batch tokens"]:
    """Generate one token at a time, up to an end token; finished samples are padded with end-of-sequence tokens."""
    shape = (run.batch, run.vocabulary)
    scores = check_scores(scorer.start(), shape, scorer.start)
    tokens: list[Tensor] = []
    unfinished = torch.ones(run.batch, dtype=torch.bool, device=run.device)
    while True:
        chosen = torch.where(unfinished, choose(scores), run.eos)
        tokens.append(chosen)
        unfinished = unfinished & ~torch.isin(chosen, run.ends)
        run.cost.keep_open(unfinished)
        if len(tokens) == run.max_new_tokens or not bool(unfinished.any()):
            return torch.stack(tokens, dim=1)
        scores = check_scores(scorer.advance(chosen), shape, scorer.advance)


def likeliest(scores: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
    return scores.argmax(dim=-1)


def sampler(run: Run, temperature: float, top_p: float, seed: int) -> Choose:
    """Create a sampler from the smallest set of tokens with `top_p` of the probability (Holtzman et al. 2020, nucleus).

    Every sample has its own random generator, so the other samples in the batch do not matter.
    """
    uniform = [torch.rand(run.max_new_tokens, generator=one) for one in run.generators(seed, "tokens")]
    draws = iter(to_device(torch.stack(uniform, dim=1), run.device))

    def choose(scores: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
        drawn = next(draws)
        probability, order = (scores / temperature).softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        before = probability.cumsum(dim=-1) - probability
        kept = probability * (before < top_p)
        total = kept.cumsum(dim=-1)
        index = (total < drawn.to(total)[:, None] * total[:, -1:]).sum(dim=-1, keepdim=True)
        return order.gather(1, index.clamp(max=int(scores.shape[-1]) - 1)).squeeze(1)

    return choose

"""Beam search over a scorer, as in transformers' `generate` with length_penalty 1 and early_stopping False.

B samples, n beams, E end tokens, C = (1 + E) n candidates, T tokens, V tokens known.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ....errors import SettingsError
from .batch_run import Run
from .scorer import Scorer, check_scores

RULED_OUT = -1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The best finished answers, best first."""

    tokens: Int[Tensor, "batch beams tokens"]
    scores: Float[Tensor, "batch beams"]
    """Log-probability divided by the number of tokens, including the end-of-sequence token."""
    there: Bool[Tensor, "batch beams"]
    filler: int
    """Padding token after the end of an answer."""

    def with_more(
        self, tokens: Int[Tensor, "batch candidates longer"], scores: Tensor, there: Bool[Tensor, "batch candidates"]
    ) -> "Finished":
        """Return the best of these answers and of new candidates."""
        missing = tokens.shape[2] - self.tokens.shape[2]
        padded = torch.nn.functional.pad(self.tokens, (0, missing), value=self.filler)
        best = torch.cat([self.scores, scores.masked_fill(~there, RULED_OUT)], dim=1).topk(self.scores.shape[1])
        return Finished(
            tokens=take_beams(torch.cat([padded, tokens], dim=1), best.indices),
            scores=best.values,
            there=take_beams(torch.cat([self.there, there], dim=1), best.indices),
            filler=self.filler,
        )


def take_beams(values: Tensor, which: Int[Tensor, "batch beams"]) -> Tensor:
    """values[b, which[b, i], ...] for every sample b."""
    return values[torch.arange(len(which), device=which.device)[:, None], which]


def beam_search(run: Run, scorer: Scorer, beams: int) -> Int[Tensor, "batch tokens"]:
    """Return the best answer that `beams` beams find, padded with end-of-sequence tokens.

    The prompt runs through the model once for all beams. A sample is finished when no running beam would be better than
    its worst finished answer if it ended now. Enough candidates are kept that n beams continue even if all others end.

    Raises:
        SettingsError: the vocabulary is smaller than the number of candidates in the first step.
    """
    candidates = (1 + len(run.ends)) * beams
    if candidates > run.vocabulary:
        raise SettingsError(
            f"decode.num_beams is {beams}, so the first step keeps {candidates} tokens, {candidates // beams} for each "
            f"beam, but this student's vocabulary has only {run.vocabulary}. Use at most "
            f"{run.vocabulary // (candidates // beams)} beams"
        )
    first_row = torch.arange(run.batch, device=run.device)[:, None]
    scores = check_scores(scorer.start(), (run.batch, run.vocabulary), scorer.start)
    log_probability = scores.log_softmax(dim=-1)[:, None]  # [B, rows of a sample, V]
    running = torch.empty((run.batch, 1, 0), dtype=torch.long, device=run.device)
    finished = Finished(
        tokens=torch.full((run.batch, beams, 1), run.eos, device=run.device),
        scores=torch.full((run.batch, beams), RULED_OUT, device=run.device),
        there=torch.zeros((run.batch, beams), dtype=torch.bool, device=run.device),
        filler=run.eos,
    )
    improvable = torch.ones((run.batch, 1), dtype=torch.bool, device=run.device)
    for length in range(1, run.max_new_tokens + 1):
        rows, vocab = log_probability.shape[1:]
        best = log_probability.flatten(1).topk(candidates)
        parents = best.indices // vocab
        tokens = torch.cat([take_beams(running, parents), (best.indices % vocab)[..., None]], dim=2)
        ended = torch.isin(tokens[..., -1], run.ends) | (length == run.max_new_tokens)
        among_best = torch.arange(candidates, device=run.device) < beams
        finished = finished.with_more(tokens, best.values / length, ended & among_best & improvable)
        alive = best.values.masked_fill(ended, RULED_OUT).topk(beams)
        worst = finished.scores.min(dim=1, keepdim=True).values
        improvable = improvable & (~finished.there.all(dim=1, keepdim=True) | (alive.values[:, :1] / length > worst))
        run.cost.keep_open(improvable.squeeze(1))
        if length == run.max_new_tokens or not bool(improvable.any()):
            break
        running = take_beams(tokens, alive.indices)
        scorer.select((first_row * rows + take_beams(parents, alive.indices)).flatten())
        scores = scorer.advance(running[..., -1].flatten())
        scores = check_scores(scores, (run.batch * beams, run.vocabulary), scorer.advance)
        log_probability = scores.log_softmax(dim=-1).unflatten(0, (run.batch, beams)) + alive.values[..., None]
    return finished.tokens[:, 0]

"""OPERA (Huang et al., CVPR 2024) step by step: one sample, no cache, every attention matrix computed anew.

The arithmetic is that of the authors' `opera_beam_search` (github.com/shikiw/OPERA, commit 61426ef,
transformers-4.29.2/src/transformers/generation/utils.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import multimode

from torch import Tensor


@dataclass
class Beam:
    tokens: list[int]
    score: float


@dataclass
class Moment:
    """What one step began with, and what it chose."""

    beams: list[Beam]
    finished: list[tuple[float, list[int]]]
    locations: list[int]
    chosen: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Run:
    answer: list[int]
    rollbacks: list[int]
    """Positions that were rolled back to."""
    penalized: list[list[dict[int, float]]]
    """For each step and beam: the candidates' logits less their penalties."""


def straight_opera(
    look: Callable[[list[int]], tuple[Tensor, Tensor]],
    prompt: list[int],
    image: list[int],
    *,
    ends: frozenset[int],
    max_new_tokens: int,
    num_beams: int,
    candidates: int,
    scale: float,
    threshold: int,
    penalty: float,
    warm_up: int,
    max_rollbacks: int,
) -> Run:
    """`look(ids)` gives the last token's logits [V] and the last layer's attention, largest over heads, [T, T]."""
    beams = [Beam([], 0.0 if beam == 0 else -1e9) for beam in range(num_beams)]
    finished: list[tuple[float, list[int]]] = []
    history: list[Moment] = []
    rejected: dict[int, set[tuple[int, int]]] = {}
    times: dict[int, int] = {}
    run = Run([], [], [])
    while True:
        length = len(beams[0].tokens) + 1
        options: list[tuple[float, int, int]] = []
        step, locations = [], []
        for number, beam in enumerate(beams):
            logits = look(prompt + beam.tokens)[0]
            penalized, where = {}, []
            for token in logits.topk(candidates).indices.tolist():
                amount, location = _penalty(look(prompt + beam.tokens + [token])[1], len(prompt), image, scale, warm_up)
                penalized[token] = float(logits[token]) - penalty * amount
                where.append(location)
            locations.append(min(multimode(where)))
            step.append(penalized)
            total = math.log(sum(math.exp(value) for value in penalized.values()))
            options += [(beam.score + value - total, number, token) for token, value in penalized.items()]
        run.penalized.append(step)
        history.append(Moment(beams, finished, locations))
        back = _rollback_position(history, times, threshold=threshold, limit=max_rollbacks, warm_up=warm_up)
        if back is not None:
            run.rollbacks.append(back)
            rejected = {position: pairs for position, pairs in rejected.items() if position <= back}
            rejected.setdefault(back, set()).update(history[back].chosen)
            del history[back + 1 :]
            beams, finished, length = history[back].beams, history[back].finished, back + 1
            options = []
            for number, beam in enumerate(beams):
                logits = look(prompt + beam.tokens)[0].double()
                logits = logits - (999.0 + logits.min())  # the authors' lines: the least likely token is at -999 now,
                for token in {token for owner, token in rejected[back] if owner == number}:
                    logits[token] = -999.0  # and those rejected are as unlikely; the softmax is over what results
                options += [
                    (beam.score + float(score), number, token) for token, score in enumerate(logits.log_softmax(dim=0))
                ]
        options = sorted(options, reverse=True, key=lambda option: option[0])[: (1 + len(ends)) * num_beams]
        over = length == max_new_tokens
        ended = [
            (score / length, [*beams[beam].tokens, token])
            for score, beam, token in options[:num_beams]
            if over or token in ends
        ]
        finished = sorted([*finished, *ended], key=lambda hypothesis: -hypothesis[0])[:num_beams]
        going = [(score, beam, token) for score, beam, token in options if token not in ends][:num_beams]
        history[-1].chosen = [(beam, token) for _, beam, token in going]
        beams = [Beam([*beams[beam].tokens, token], score) for score, beam, token in going]
        full = len(finished) == num_beams
        if over or (full and beams[0].score / length <= finished[-1][0]):
            run.answer = finished[0][1]
            return run


def _penalty(attention: Tensor, prompt: int, image: list[int], scale: float, warm_up: int) -> tuple[float, int]:
    """What a candidate, the last token, is penalized by, and the column that the answer trusts most."""
    attention = attention / attention.sum(dim=-1, keepdim=True)
    local = scale * attention[prompt:, prompt:]
    columns = [1e-7 * math.prod(local[column:, column].tolist()) for column in range(len(local))]
    location = columns.index(max(columns))
    if len(local) <= warm_up:
        return -float(attention[-1, image].sum()), location
    return columns[location], location


def _rollback_position(
    history: list[Moment], times: dict[int, int], *, threshold: int, limit: int, warm_up: int
) -> int | None:
    """Tokens to keep, or None: every beam has named the same column more than `threshold` times."""
    location = min(multimode(history[-1].locations))
    beams = range(len(history[-1].locations))
    if not all(sum(moment.locations[beam] == location for moment in history) > threshold for beam in beams):
        return None
    if location < warm_up:
        return None
    for position in (location + 1, location):
        if times.get(position, 0) < limit:
            times[position] = times.get(position, 0) + 1
            return position
    return None

"""OPERA: penalizes beams that attend too much to a few of their own tokens, and rolls back to where that began.

    score of a candidate y = l(y) - penalty_weight P(y), softmax over each beam's num_candidates most likely tokens
    P(y) = max_j 1e-7 prod_{i >= j} scale_factor a_ij,  a_ij the attention of answer token i to answer token j
    P(y) = - (attention of y to the image)  for the first `warm_up` tokens

a is the last layer's attention, maximum over heads, divided by the sum of its row; it includes y's own row. Every step
records the most attended column j of each beam. When all beams have recorded the same j, after the warm-up, in more
than `threshold` steps, the answer rolls back to its state right after token j, and its next token is chosen by log p
only, with the logits of earlier choices there set to the beam's minimum. After `max_rollbacks` rollbacks to one length,
further ones go back one more token; if that length has had as many, the answer continues.

Huang et al. 2024, OPERA: Alleviating Hallucination in Multi-Modal Large Language Models via Over-Trust Penalty and
Retrospection-Allocation (CVPR), with the constants of the authors' code (github.com/shikiw/OPERA, commit 61426ef).
Differences from that code: each sample rolls back separately (there, the whole batch or nothing); products are sums of
logarithms (there float16, which overflows); a beam chooses only among its candidates; beams end as in `beam`; and a
candidate is scored in the same pass that extends it, on a tree of cached tokens (core/tree.py), so that a rollback
recomputes nothing.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from ....errors import SettingsError
from ....plain_text import counted
from ...transfer import to_device
from ..core.batch_run import Run
from ..core.method import Method
from ..core.tree import Tree

DAMPING = 1e-7
"""Factor of products in the authors' code."""
LARGEST = 700.0
"""Largest exponent of a penalty, so that its exponential is finite."""
RULED_OUT = -1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class OperaSettings:
    num_beams: Annotated[int, Field(ge=2, description="Number of beams.")] = 5
    num_candidates: Annotated[int, Field(ge=2, description="Number of most likely tokens scored for each beam.")] = 5
    scale_factor: Annotated[float, Field(gt=0, description="Factor of attention in products.")] = 50.0
    penalty_weight: Annotated[float, Field(ge=0, description="Weight of the penalty, in nats.")] = 1.0
    threshold: Annotated[int, Field(ge=1, description="Steps that may record the same column before a rollback.")] = 15
    max_rollbacks: Annotated[int, Field(ge=0, description="Maximum rollbacks to one length; 0 disables rollbacks.")] = 5
    warm_up: Annotated[
        int,
        Field(ge=0, description="First tokens, rewarded for attention to the image, and never rolled back."),
    ] = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Beams of one sample with t tokens each. n beams, d width."""

    tokens: Int[Tensor, "beams tokens"]
    places: Int[Tensor, "beams tokens"]
    """Cache positions of the tokens in the tree."""
    trust: Float[Tensor, "beams tokens"]
    """Logarithm of each column's product so far."""
    scores: Float[Tensor, " beams"]
    """Log-probabilities."""
    states: Float[Tensor, "beams width"]
    finished: tuple[tuple[float, list[int]], ...] = ()
    """Finished answers with their log-probability per token, best first."""
    locations: tuple[int, ...] = ()
    """The most attended column of each beam's candidates."""
    parents: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """Beams that were continued from here, and their next tokens."""
    chosen: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))


@dataclass(frozen=True, kw_only=True, slots=True)
class Weighed:
    """Candidates of one sample's beams. n beams, C candidates, t tokens so far."""

    tokens: Int[Tensor, "beams candidates"]
    scores: Float[Tensor, "beams candidates"]
    """Logits minus penalties."""
    trust: Float[Tensor, "beams candidates longer"]
    locations: tuple[int, ...]


class Search:
    """The search for one sample's answer."""

    def __init__(self, run: Run, settings: OperaSettings, image: Int[Tensor, " places"], root: Tensor) -> None:
        self.settings, self.eos, self.longest = settings, run.eos, run.max_new_tokens
        self.ends = run.ends.cpu()
        self.image = image
        n = settings.num_beams
        nothing = torch.empty((n, 0), dtype=torch.long)
        scores = torch.full((n,), RULED_OUT, dtype=torch.float64)  # all beams are equal at first, so only one counts
        scores[0] = 0
        self.moment = Moment(
            tokens=nothing, places=nothing, trust=nothing.double(), scores=scores, states=root.expand(n, -1)
        )
        self.history: list[Moment] = []
        self.times: Counter[int] = Counter()
        self.rejected: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self.open = True

    def weigh(self, tokens: Tensor, logits: Tensor, rows: Float[Tensor, "nodes places"], first: int) -> Weighed:
        """Score candidates [n, C] of the beams by their attention [n C, S], with cache positions from `first` on."""
        candidates = tokens.shape[1]
        rows = rows / rows.sum(dim=1, keepdim=True)
        parents = torch.arange(len(tokens)).repeat_interleave(candidates)
        trust = self.trusted(rows, parents, first).unflatten(0, (-1, candidates))
        worst = trust.max(dim=-1)
        if trust.shape[-1] <= self.settings.warm_up:
            penalty = -rows[:, self.image].sum(dim=1).unflatten(0, (-1, candidates))
        else:
            penalty = (worst.values + math.log(DAMPING)).clamp(max=LARGEST).exp()
        return Weighed(
            tokens=tokens,
            scores=logits - self.settings.penalty_weight * penalty,
            trust=trust,
            locations=tuple(worst.indices.mode(dim=1).values.tolist()),
        )

    def trusted(self, rows: Float[Tensor, "nodes places"], parents: Tensor, first: int) -> Tensor:
        """Logarithms of the columns' products [nodes, t + 1] including the rows of new nodes, from `first` on."""
        itself = rows[torch.arange(len(rows)), first + torch.arange(len(rows))]
        own = torch.cat([rows.gather(1, self.moment.places[parents]), itself[:, None]], dim=1)
        return functional.pad(self.moment.trust[parents], (0, 1)) + (self.settings.scale_factor * own).log()

    def note(self, locations: tuple[int, ...]) -> bool:
        """Record the columns of this step; returns whether the search rolled back."""
        self.history.append(replace(self.moment, locations=locations))
        back = self._rollback_length()
        if back is None:
            return False
        self.rejected = {place: pairs for place, pairs in self.rejected.items() if place <= back}
        self.rejected.setdefault(back, []).append((self.history[back].parents, self.history[back].chosen))
        self.moment = self.history[back]
        del self.history[back + 1 :]
        return True

    def _rollback_length(self) -> int | None:
        """Number of tokens to keep if too many steps have recorded the same column, else None."""
        location = int(torch.tensor(self.history[-1].locations).mode().values)
        recorded = torch.tensor([moment.locations for moment in self.history]) == location
        if location < self.settings.warm_up or not bool((recorded.sum(dim=0) > self.settings.threshold).all()):
            return None
        for length in (location + 1, location):
            if self.times[length] < self.settings.max_rollbacks:
                self.times[length] += 1
                return length
        return None

    def allowed(self, logits: Float[Tensor, "beams vocab"]) -> Float[Tensor, "beams vocab"]:
        """Log-probabilities at the state after a rollback, without earlier choices there."""
        return without_rejected(logits, self.rejected[len(self.history) - 1])

    def choose(self, scores: Float[Tensor, "beams options"], tokens: Int[Tensor, "beams options"]) -> Tensor:
        """Continue with the best n of the beams' options; returns their indices in the flattened `scores`.

        Of the best (1 + E) n options, for E end tokens, those among the first n that end are finished answers.
        """
        beams = self.settings.num_beams
        best = (scores + self.moment.scores[:, None]).flatten().topk((1 + len(self.ends)) * beams)
        parents = best.indices // scores.shape[1]
        chosen = tokens.flatten()[best.indices]
        length = self.moment.tokens.shape[1] + 1
        ends = torch.isin(chosen, self.ends) | (length == self.longest)
        finished = list(self.moment.finished)
        for rank in ends[:beams].nonzero().flatten().tolist():
            answer_tokens = [*self.moment.tokens[parents[rank]].tolist(), int(chosen[rank])]
            finished.append((float(best.values[rank]) / length, answer_tokens))
        finished = sorted(finished, key=lambda answer: -answer[0])[:beams]
        alive = best.values.masked_fill(ends, RULED_OUT).topk(beams)
        going = alive.indices
        self.open = length < self.longest and (
            len(finished) < beams or float(alive.values[0]) / length > finished[-1][0]
        )
        self.history[-1] = replace(self.history[-1], parents=parents[going], chosen=chosen[going])
        self.moment = replace(self.moment, finished=tuple(finished), scores=alive.values)
        return best.indices[going]

    def extend(self, trust: Float[Tensor, "beams longer"], states: Float[Tensor, "beams width"], first: int) -> None:
        """Extend the chosen beams by their new tokens, which are in the tree from position `first` on."""
        before, last = self.moment, self.history[-1]
        places = first + torch.arange(len(states))
        self.moment = replace(
            before,
            tokens=torch.cat([before.tokens[last.parents], last.chosen[:, None]], dim=1),
            places=torch.cat([before.places[last.parents], places[:, None]], dim=1),
            trust=trust,
            states=states,
        )


def without_rejected(
    logits: Float[Tensor, "beams vocab"], rejected: Sequence[tuple[Tensor, Tensor]]
) -> Float[Tensor, "beams vocab"]:
    """Make rejected (beams, tokens) as unlikely as their beam's least likely token.

    The logits are changed, as in the authors' code, so each beam's probabilities still sum to one.
    """
    remaining = logits.double()
    least = remaining.amin(dim=-1)
    for beams, tokens in rejected:
        remaining = remaining.index_put((beams, tokens), least[beams])
    return remaining.log_softmax(dim=-1)


def answer(run: Run, settings: OperaSettings) -> Tensor:
    check_candidates(run, settings.num_candidates)
    tree = Tree(run)
    images = run.prompt.images
    searches = [
        Search(run, settings, images.positions[images.sample == number].flatten().cpu(), state)
        for number, state in enumerate(tree.root)
    ]
    is_open = torch.ones(run.batch, dtype=torch.bool)
    while bool(is_open.any()):
        returned = _step(tree, searches)
        if returned:
            _choose_again(run, tree, searches, returned)
        is_open = torch.tensor([search.open for search in searches])
        run.cost.keep_open(to_device(is_open, run.device))
    answers = [torch.tensor(search.moment.finished[0][1]) for search in searches]
    return pad_sequence(answers, batch_first=True, padding_value=run.eos).to(run.device)


def check_candidates(run: Run, candidates: int) -> None:
    """Check that each beam can continue even if all end tokens are among its candidates.

    Raises:
        SettingsError: there are too few candidates for that, or more candidates than tokens.
    """
    least = 1 + len(run.ends)
    if not least <= candidates <= run.vocabulary:
        raise SettingsError(
            f"decode.num_candidates is {candidates}, but this student has {counted(len(run.ends), 'end token')} and "
            "a vocabulary "
            f"of {run.vocabulary}. Use a value from {least} to {run.vocabulary}"
        )


def _step(tree: Tree, searches: Sequence[Search]) -> list[int]:
    """Add a token to every open search, except those that rolled back, whose indices are returned."""
    beams, candidates = searches[0].settings.num_beams, searches[0].settings.num_candidates
    states = torch.stack([search.moment.states for search in searches])
    likeliest = tree.next_logits(states).topk(candidates)
    paths = [search.moment.places.repeat_interleave(candidates, dim=0) for search in searches]
    grown = tree.grow(likeliest.indices.flatten(1), paths)
    logits, tokens, rows = _read(likeliest.values, likeliest.indices, grown.rows)
    tokens = tokens.long()
    nodes = torch.arange(beams).repeat(len(searches), 1)
    trust: dict[int, Tensor] = {}
    returned = []
    for number, search in enumerate(searches):
        if not search.open:
            continue
        weighed = search.weigh(tokens[number], logits[number], rows[number], grown.first)
        if search.note(weighed.locations):
            returned.append(number)
            continue
        nodes[number] = search.choose(weighed.scores.log_softmax(dim=1), weighed.tokens)
        trust[number] = weighed.trust.flatten(0, 1)[nodes[number]]
    nodes = to_device(nodes, states.device)
    tree.keep(grown, nodes)
    for number, columns in trust.items():
        searches[number].extend(columns, grown.states[number, nodes[number]], grown.first)
    return returned


def _read(*values: Tensor) -> list[Tensor]:
    """Copy values to the CPU in float64, waiting for the device once."""
    read = torch.cat([value.double().flatten() for value in values]).cpu()
    return [part.view(value.shape) for part, value in zip(read.split([v.numel() for v in values]), values, strict=True)]


def _choose_again(run: Run, tree: Tree, searches: Sequence[Search], returned: Sequence[int]) -> None:
    """After rollbacks, choose the next token only by probability and run it; the other searches wait."""
    is_returned = torch.tensor([number in returned for number in range(len(searches))])
    run.cost.keep_open(to_device(is_returned, tree.root.device))
    tokens = [torch.full((search.settings.num_beams,), search.eos) for search in searches]
    paths = [search.moment.places for search in searches]
    for number in returned:
        search = searches[number]
        scores = search.allowed(tree.next_logits(search.moment.states).cpu())
        search.choose(scores, torch.arange(scores.shape[1]).expand(len(scores), -1))
        tokens[number], parents = search.history[-1].chosen, search.history[-1].parents
        paths[number] = search.moment.places[parents]
    grown = tree.grow(to_device(torch.stack(tokens), tree.root.device), paths)
    rows = grown.rows.double().cpu()
    for number in returned:
        own = rows[number] / rows[number].sum(dim=1, keepdim=True)
        trust = searches[number].trusted(own, searches[number].history[-1].parents, grown.first)
        searches[number].extend(trust, grown.states[number], grown.first)


METHOD = Method(
    name="opera",
    formula="beams of l(y) - penalty_weight max_j 1e-7 prod_i scale_factor a_ij, with rollback if all attend to one j",
    paper="Huang et al. 2024, OPERA (CVPR)",
    settings=OperaSettings,
    answer=answer,
)

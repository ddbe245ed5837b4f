"""OPERA: beams are penalised for trusting a few of their own tokens too much, and go back to where that began.

    score of a candidate y = l(y) - penalty_weight P(y), softmax over each beam's num_candidates likeliest tokens
    P(y) = max_j 1e-7 prod_{i >= j} scale_factor a_ij,  a_ij what answer token i attends to answer token j
    P(y) = - (what y attends to the image)  among the first `warm_up` tokens

a is the last layer's attention, the largest over its heads, divided by its row's sum; y's own row belongs to it. Every
step names the most trusted column j of each beam. Once all beams have named the same j, behind the warm-up, at more
than `threshold` steps, the answer goes back to what it was right behind token j, and its next token is chosen by log p
alone, with the logits of what was chosen there before set to the beam's smallest. After `max_rollbacks` rollbacks to
one length, those that are due go one token further back; when that length has had as many, the answer goes on.

Huang et al. 2024, OPERA: Alleviating Hallucination in Multi-Modal Large Language Models via Over-Trust Penalty and
Retrospection-Allocation (CVPR), with the constants of the authors' code (github.com/shikiw/OPERA, commit 61426ef).
What differs from that code: each sample goes back by itself (there a batch, or none of it); products are sums of
logarithms (there float16, which overflows); a beam chooses among its candidates alone; beams end as those of `beam`
do; and a candidate is weighed in the same pass that continues it, on a tree of cached tokens (core/tree.py), so that
a rollback computes nothing again.
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
from ...transfer import to_device
from ..core.batch_run import Run
from ..core.method import Method
from ..core.tree import Tree

DAMPING = 1e-7
"""What the authors' code multiplies products by."""
LARGEST = 700.0
"""Largest exponent of a penalty: exp of it is still a number."""
RULED_OUT = -1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class OperaSettings:
    num_beams: Annotated[int, Field(ge=2, description="Beams.")] = 5
    num_candidates: Annotated[int, Field(ge=2, description="Tokens that are weighed for each beam, the likeliest.")] = 5
    scale_factor: Annotated[float, Field(gt=0, description="What attention is multiplied by in products.")] = 50.0
    penalty_weight: Annotated[float, Field(ge=0, description="Weight of the penalty, in nats.")] = 1.0
    threshold: Annotated[int, Field(ge=1, description="Steps that may name the same column before a rollback.")] = 15
    max_rollbacks: Annotated[int, Field(ge=0, description="Rollbacks to one length of the answer; 0: none.")] = 5
    warm_up: Annotated[
        int,
        Field(ge=0, description="First tokens, which are not punished but rewarded for seeing the image, and stay."),
    ] = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Beams of one sample with t tokens each. n beams, d width."""

    tokens: Int[Tensor, "beams tokens"]
    places: Int[Tensor, "beams tokens"]
    """Where the tree has them."""
    trust: Float[Tensor, "beams tokens"]
    """Logarithm of each column's product so far."""
    scores: Float[Tensor, " beams"]
    """Log-probabilities."""
    states: Float[Tensor, "beams width"]
    finished: tuple[tuple[float, list[int]], ...] = ()
    """Answers that have ended, with their log-probability per token, best first."""
    locations: tuple[int, ...] = ()
    """The most trusted column of each beam's candidates."""
    parents: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """Beams that were gone on with from here, and the tokens that they got."""
    chosen: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))


@dataclass(frozen=True, kw_only=True, slots=True)
class Weighed:
    """Candidates of one sample's beams. n beams, C candidates, t tokens so far."""

    tokens: Int[Tensor, "beams candidates"]
    scores: Float[Tensor, "beams candidates"]
    """Logits less penalties."""
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
        scores = torch.full((n,), RULED_OUT, dtype=torch.float64)  # all beams are the same as yet, so one counts
        scores[0] = 0
        self.moment = Moment(
            tokens=nothing, places=nothing, trust=nothing.double(), scores=scores, states=root.expand(n, -1)
        )
        self.history: list[Moment] = []
        self.times: Counter[int] = Counter()
        self.rejected: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self.open = True

    def weigh(self, tokens: Tensor, logits: Tensor, rows: Float[Tensor, "nodes places"], first: int) -> Weighed:
        """Candidates [n, C] of the beams; their attention [n C, S], in which they stand from place `first` on."""
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
        """Logarithms of the columns' products [nodes, t + 1] with the rows of new nodes, from place `first` on."""
        itself = rows[torch.arange(len(rows)), first + torch.arange(len(rows))]
        own = torch.cat([rows.gather(1, self.moment.places[parents]), itself[:, None]], dim=1)
        return functional.pad(self.moment.trust[parents], (0, 1)) + (self.settings.scale_factor * own).log()

    def note(self, locations: tuple[int, ...]) -> bool:
        """Remember which columns this step named; whether the search went back because of it."""
        self.history.append(replace(self.moment, locations=locations))
        back = self._where_to()
        if back is None:
            return False
        self.rejected = {place: pairs for place, pairs in self.rejected.items() if place <= back}
        self.rejected.setdefault(back, []).append((self.history[back].parents, self.history[back].chosen))
        self.moment = self.history[back]
        del self.history[back + 1 :]
        return True

    def _where_to(self) -> int | None:
        """How many tokens stay, where too many steps have named the same column."""
        location = int(torch.tensor(self.history[-1].locations).mode().values)
        named = torch.tensor([moment.locations for moment in self.history]) == location
        if location < self.settings.warm_up or not bool((named.sum(dim=0) > self.settings.threshold).all()):
            return None
        for place in (location + 1, location):
            if self.times[place] < self.settings.max_rollbacks:
                self.times[place] += 1
                return place
        return None

    def allowed(self, logits: Float[Tensor, "beams vocab"]) -> Float[Tensor, "beams vocab"]:
        """Log-probabilities behind the moment gone back to, without what was chosen there before."""
        return without_rejected(logits, self.rejected[len(self.history) - 1])

    def choose(self, scores: Float[Tensor, "beams options"], tokens: Int[Tensor, "beams options"]) -> Tensor:
        """Go on with the best n of the beams' options; their places in the flattened `scores`.

        Of the best (1 + E) n, for E end tokens, those among the first n that end are finished.
        """
        beams = self.settings.num_beams
        best = (scores + self.moment.scores[:, None]).flatten().topk((1 + len(self.ends)) * beams)
        parents = best.indices // scores.shape[1]
        chosen = tokens.flatten()[best.indices]
        length = self.moment.tokens.shape[1] + 1
        ends = torch.isin(chosen, self.ends) | (length == self.longest)
        finished = list(self.moment.finished)
        for rank in ends[:beams].nonzero().flatten().tolist():
            said = [*self.moment.tokens[parents[rank]].tolist(), int(chosen[rank])]
            finished.append((float(best.values[rank]) / length, said))
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
        """The beams chosen last have their new tokens in the tree, from place `first` on."""
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
    """Log-probabilities in which rejected (beams, tokens) are as unlikely as their beam's least likely token.

    They are set in the logits, as the authors' code does, so what is left of each beam sums to one again.
    """
    left = logits.double()
    least = left.amin(dim=-1)
    for beams, tokens in rejected:
        left = left.index_put((beams, tokens), least[beams])
    return left.log_softmax(dim=-1)


def answer(run: Run, settings: OperaSettings) -> Tensor:
    check_candidates(run, settings.num_candidates)
    tree = Tree(run)
    images = run.prompt.images
    searches = [
        Search(run, settings, images.positions[images.sample == number].flatten().cpu(), state)
        for number, state in enumerate(tree.root)
    ]
    still = torch.ones(run.batch, dtype=torch.bool)
    while bool(still.any()):
        returned = _step(tree, searches)
        if returned:
            _choose_again(run, tree, searches, returned)
        still = torch.tensor([search.open for search in searches])
        run.cost.keep_open(to_device(still, run.device))
    answers = [torch.tensor(search.moment.finished[0][1]) for search in searches]
    return pad_sequence(answers, batch_first=True, padding_value=run.eos).to(run.device)


def check_candidates(run: Run, candidates: int) -> None:
    """Each beam must be able to go on where all end tokens are among its candidates.

    Raises:
        SettingsError: there are too few candidates for that, or more than tokens.
    """
    least = 1 + len(run.ends)
    if not least <= candidates <= run.vocabulary:
        raise SettingsError(
            f"decode.num_candidates is {candidates}, but this student has {len(run.ends)} end tokens and a vocabulary "
            f"of {run.vocabulary}: give {least} to {run.vocabulary}"
        )


def _step(tree: Tree, searches: Sequence[Search]) -> list[int]:
    """One more token for every open search but those that went back, which are returned."""
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
    """Values on the CPU in float64, for which the host waits once."""
    read = torch.cat([value.double().flatten() for value in values]).cpu()
    return [part.view(value.shape) for part, value in zip(read.split([v.numel() for v in values]), values, strict=True)]


def _choose_again(run: Run, tree: Tree, searches: Sequence[Search], returned: Sequence[int]) -> None:
    """Searches that went back choose by probability alone, and their choice is read; the others wait."""
    going = torch.tensor([number in returned for number in range(len(searches))])
    run.cost.keep_open(to_device(going, tree.root.device))
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
    formula="beams of l(y) - penalty_weight max_j 1e-7 prod_i scale_factor a_ij, rolled back where all trust one j",
    paper="Huang et al. 2024, OPERA (CVPR)",
    settings=OperaSettings,
    answer=answer,
)

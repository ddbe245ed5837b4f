"""Training an image tower on caption slots and on the contents of cells: the demo's teacher, its student's tower."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ...progress import Progress
from .cell_targets import CellHeads, CellTargets
from .corpus import NO_PHRASE, SLOTS, Corpus, batches

Encode = Callable[
    [Float[Tensor, "batch 3 96 96"]], tuple[Float[Tensor, "batch width"], Float[Tensor, "batch patches width"]]
]
"""Pixels to (class token, patch tokens)."""

CELL_WEIGHT = 0.5
"""Weight of the loss of `CellHeads`."""
PLACE_SCALE = 10.0
"""Factor of the learned places, so that they move faster than other weights: organs have their places."""


class SlotHeads(nn.Module):
    """Predicts the phrase of every slot twice: from patches, pooled by a learned query and place, and from the class
    token.

    The first makes patch tokens informative about their location; the second makes the class token attend to the
    content of captions.
    """

    def __init__(self, width: int, patches: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(SLOTS), width) * width**-0.5)
        self.places = nn.Parameter(torch.zeros(len(SLOTS), patches))
        self.norm = nn.LayerNorm(width)
        self.from_patches = nn.ModuleList(nn.Linear(width, len(phrases)) for phrases in SLOTS.values())
        self.from_class = nn.ModuleList(nn.Linear(width, len(phrases)) for phrases in SLOTS.values())

    def forward(
        self, class_token: Float[Tensor, "batch width"], patches: Float[Tensor, "batch patches width"]
    ) -> list[tuple[Tensor, Tensor]]:
        """The logits of the phrases of every slot, from patches and from the class token."""
        patches, class_token = self.norm(patches), self.norm(class_token)
        weights = (patches @ self.queries.T + PLACE_SCALE * self.places.T).softmax(dim=1)  # [batch, patches, slots]
        pooled = weights.transpose(1, 2) @ patches
        return [
            (head(pooled[:, index]), other(class_token))
            for index, (head, other) in enumerate(zip(self.from_patches, self.from_class, strict=True))
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotAccuracy:
    """Fraction of slots filled correctly on held-out phantoms."""

    from_patches: float
    """Over all slots."""
    lesion: float
    """For the lesion slot only, from patches."""
    lesion_from_class: float
    """For the lesion slot only, from the class token."""


def train_on_slots(
    tower: nn.Module,
    encode: Encode,
    width: int,
    corpus: Corpus,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    label: str,
    progress: Progress,
    told_by_class: Sequence[str] = tuple(SLOTS),
    cells: CellTargets,
) -> SlotHeads:
    """Train a tower and fresh heads in place; one-cycle learning rate, AdamW.

    `told_by_class` are the slots that the class token must predict; patches always predict all of them, and each of
    them the content of its cell.
    """
    torch.manual_seed(seed)
    heads, cell_heads = SlotHeads(width, cells.organs.shape[1]), CellHeads(width)
    parameters = [*tower.parameters(), *heads.parameters(), *cell_heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.15)
    generator = torch.Generator().manual_seed(seed)
    progress.start(label, steps)
    tower.train()
    for step, chosen in enumerate(batches(len(corpus.pixels), batch_size, steps, generator)):
        class_token, patches = encode(corpus.pixels[chosen])
        loss = slot_loss(heads(class_token, patches), corpus.slots[chosen], told_by_class)
        loss = loss + CELL_WEIGHT * cell_heads.loss(patches, cells, chosen)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        progress.advance()
        if step % 100 == 99:
            progress.note(f"{label}: step {step + 1}, loss {loss.item():.3f}")
    tower.eval()
    return heads


def slot_loss(
    logits: list[tuple[Tensor, Tensor]], slots: Tensor, told_by_class: Sequence[str] = tuple(SLOTS)
) -> Tensor:
    """Mean cross-entropy over the slots in captions, from patches and, for some slots, from the class token."""
    terms = []
    for index, (name, (patches, class_token)) in enumerate(zip(SLOTS, logits, strict=True)):
        target = slots[:, index]
        if (target != NO_PHRASE).any():
            terms.append(functional.cross_entropy(patches, target, ignore_index=NO_PHRASE))
            if name in told_by_class:
                terms.append(functional.cross_entropy(class_token, target, ignore_index=NO_PHRASE))
    return torch.stack(terms).mean()


@torch.no_grad()
def slot_accuracy(heads: SlotHeads, encode: Encode, corpus: Corpus) -> SlotAccuracy:
    """Held-out accuracy of trained heads."""
    everything: list[Tensor] = []
    lesion: list[Tensor] = []
    lesion_from_class: list[Tensor] = []
    for chosen in torch.arange(len(corpus.pixels)).split(100):
        logits = heads(*encode(corpus.pixels[chosen]))
        for index, (name, (patches, class_token)) in enumerate(zip(SLOTS, logits, strict=True)):
            target = corpus.slots[chosen][:, index]
            present = target != NO_PHRASE
            hits = (patches.argmax(1) == target)[present]
            everything.append(hits)
            if name == "lesion":
                lesion.append(hits)
                lesion_from_class.append((class_token.argmax(1) == target)[present])
    means = [float(torch.cat(hits).float().mean()) for hits in (everything, lesion, lesion_from_class)]
    return SlotAccuracy(from_patches=means[0], lesion=means[1], lesion_from_class=means[2])

"""Training an image tower on caption slots; used for the demo's teacher and for its student's vision tower."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ...progress import Progress
from .corpus import NO_PHRASE, SLOTS, Corpus, batches

Encode = Callable[
    [Float[Tensor, "batch 3 96 96"]], tuple[Float[Tensor, "batch width"], Float[Tensor, "batch patches width"]]
]
"""Pixels to (class token, patch tokens)."""


class SlotHeads(nn.Module):
    """Predicts the phrase of every slot twice: from patches with a learned query per slot, and from the class token.

    The first makes patch tokens informative about their location; the second makes the class token attend to the
    content of captions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(SLOTS), width) * width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.from_patches = nn.ModuleList(nn.Linear(width, len(phrases)) for phrases in SLOTS.values())
        self.from_class = nn.ModuleList(nn.Linear(width, len(phrases)) for phrases in SLOTS.values())

    def forward(
        self, class_token: Float[Tensor, "batch width"], patches: Float[Tensor, "batch patches width"]
    ) -> list[tuple[Tensor, Tensor]]:
        """The logits of the phrases of every slot, from patches and from the class token."""
        patches, class_token = self.norm(patches), self.norm(class_token)
        weights = (patches @ self.queries.T).softmax(dim=1)  # [batch, patches, slots]
        pooled = weights.transpose(1, 2) @ patches
        return [
            (head(pooled[:, index]), other(class_token))
            for index, (head, other) in enumerate(zip(self.from_patches, self.from_class, strict=True))
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotAccuracy:
    """Fraction of slots filled correctly on held-out phantoms."""

    from_patches: float
    from_class: float
    lesion: float
    """For the lesion slot only, from patches."""


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
) -> SlotHeads:
    """Train a tower and fresh heads in place; one-cycle learning rate, AdamW.

    `told_by_class` are the slots that the class token must predict; patches always predict all of them.
    """
    torch.manual_seed(seed)
    heads = SlotHeads(width)
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.15)
    generator = torch.Generator().manual_seed(seed)
    progress.start(label, steps)
    tower.train()
    for step, chosen in enumerate(batches(len(corpus.pixels), batch_size, steps, generator)):
        loss = slot_loss(heads(*encode(corpus.pixels[chosen])), corpus.slots[chosen], told_by_class)
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
    hits: dict[str, list[Tensor]] = {"patches": [], "class": [], "lesion": []}
    for chosen in torch.arange(len(corpus.pixels)).split(100):
        logits = heads(*encode(corpus.pixels[chosen]))
        for index, (name, (patches, class_token)) in enumerate(zip(SLOTS, logits, strict=True)):
            target = corpus.slots[chosen][:, index]
            present = target != NO_PHRASE
            found = (patches.argmax(1) == target)[present]
            hits["patches"].append(found)
            hits["class"].append((class_token.argmax(1) == target)[present])
            if name == "lesion":
                hits["lesion"].append(found)
    means = {name: float(torch.cat(found).float().mean()) for name, found in hits.items()}
    return SlotAccuracy(from_patches=means["patches"], from_class=means["class"], lesion=means["lesion"])

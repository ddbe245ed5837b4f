"""One batch in generation: the student, its prompts, the token limit, and the cost. B samples."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from ...adapters.parameter_names import feature_layer
from ...alignment.attention_taps import SeenAttention, tapped
from ...loading.student_loading import Student
from ...transfer import to_device
from .branch import Branch, Hook
from .cost import Cost
from .finite_scores import FiniteWatch
from .prompt import Prompt


@dataclass(frozen=True, kw_only=True)
class Run:
    """Input of a decoding method, which creates branches and returns the tokens of the answers."""

    student: Student
    prompt: Prompt
    pixel_values: Float[Tensor, "images 3 size size"] | None
    question_ids: tuple[str, ...]
    max_new_tokens: int
    cost: Cost = field(repr=False)

    @property
    def llava(self) -> LlavaForConditionalGeneration:
        return self.student.model.stock

    @property
    def batch(self) -> int:
        return len(self.question_ids)

    @property
    def device(self) -> torch.device:
        return self.prompt.input_ids.device

    @property
    def eos(self) -> int:
        """Token that pads an answer after its end."""
        return self.student.end_tokens[0]

    @cached_property
    def ends(self) -> Int[Tensor, " ends"]:
        """Every token that ends an answer."""
        return to_device(torch.tensor(self.student.end_tokens), self.device)

    @property
    def vocabulary(self) -> int:
        """Number of tokens in the logits."""
        return int(self.llava.lm_head.weight.shape[0])

    @cached_property
    def watch(self) -> FiniteWatch:
        """Records whether logits and scores were finite."""
        return FiniteWatch(self.cost, self.batch, self.device)

    @cached_property
    def suppressed(self) -> Int[Tensor, " suppressed"] | None:
        """Tokens that must never be generated according to the checkpoint, such as the image token; None if none."""
        tokens = self.llava.generation_config.suppress_tokens
        return to_device(torch.tensor(tokens), self.device) if tokens else None

    def branch(self, prompt: Prompt | None = None, hooks: Sequence[Hook] = ()) -> Branch:
        """Create a branch for `prompt`, by default the batch's prompt; its hooks act only in its forward passes."""
        return Branch(
            self.student.model,
            prompt or self.prompt,
            cost=self.cost,
            watch=self.watch,
            suppressed=self.suppressed,
            hooks=hooks,
        )

    def image_tokens(self, pixel_values: Float[Tensor, "images 3 size size"]) -> Float[Tensor, "images patches width"]:
        """Compute image tokens of modified pixels."""
        return self.student.model.image_tokens(pixel_values)

    def class_attention(self) -> Float[Tensor, "images patches"]:
        """Attention of the vision tower's class token to the patches, mean over heads.

        In the layer whose output becomes the image tokens (`vision_feature_layer`; layer -2 of LLaVA's towers). The
        student does not use later layers.
        """
        assert self.pixel_values is not None
        layers = self.llava.model.vision_tower.encoder.layers
        seen: list[Tensor] = []

        def keep(attention: SeenAttention) -> None:
            seen.append(attention.weights(row=0))

        with tapped([layers[feature_layer(self.llava.config)].self_attn], [keep]):
            self.llava.model.vision_tower(self.pixel_values)
        return seen[0].mean(dim=1)[:, 1:]

    def generators(self, seed: int, purpose: str) -> list[torch.Generator]:
        """Create a random generator for each sample, which does not depend on the batch or the position in it."""
        keys = [f"{seed}\n{purpose}\n{question_id}" for question_id in self.question_ids]
        seeds = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1 for key in keys]
        return [torch.Generator().manual_seed(number) for number in seeds]

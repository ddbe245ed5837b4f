"""Private and unstable API of transformers that medalign uses; tested with transformers 5.23 to 5.24.

Attention registries, the KV cache's argument and layers, encoded images as inputs, gradient checkpointing of decoder
layers, and private methods of the Trainer. All of this may change in any release of transformers.
"""

import copy
import gc
import inspect
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import DynamicCache, LlavaModel, Trainer, TrainingArguments
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_FORWARD = inspect.signature(LlavaModel.forward).parameters
_CACHE = next((name for name in ("cache", "past_key_values") if name in _FORWARD), None)
_TRAINER_METHODS = (
    "_get_train_sampler",
    "_get_eval_sampler",
    "_get_grad_norm",
    "_load_from_checkpoint",
    "_load_optimizer_and_scheduler",
    "_load_rng_state",
    "_prepare_input",
    "_prepare_inputs",
    "_save_checkpoint",
    "_save_optimizer_and_scheduler",
    "compute_loss_context_manager",
    "create_accelerator_and_postprocess",
    "get_batch_samples",
)


def _missing() -> list[str]:
    names = [f"Trainer.{name}" for name in _TRAINER_METHODS if not hasattr(Trainer, name)]
    names += [f"LlavaModel.forward({name})" for name in ("mm_encoder_outputs",) if name not in _FORWARD]
    return names + (["LlavaModel.forward(cache)"] if _CACHE is None else [])


if _missing():
    raise ImportError(
        f"transformers {transformers.__version__} lacks {', '.join(_missing())}, which medalign uses. Install a "
        "version that medalign was tested with (`medalign doctor` lists them)"
    )

AttentionFunction = Callable[..., tuple[Tensor, None]]


def register_attention(name: str, attention: AttentionFunction) -> None:
    """Register `attention` under `name`, with the masks of sdpa."""
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def sdpa_attention() -> AttentionFunction:
    """transformers' own attention on torch's scaled_dot_product_attention."""
    function: AttentionFunction = ALL_ATTENTION_FUNCTIONS["sdpa"]
    return function


def use_attention(module: Any, name: str) -> None:
    """Set a registered function for one layer's attention module; the other layers keep the model's config."""
    config = copy.copy(module.config)
    config._attn_implementation = name
    module.config = config


def cache_argument(cache: DynamicCache) -> dict[str, DynamicCache]:
    """Keyword argument for the KV cache in a model's forward: `past_key_values` before transformers 5.24."""
    assert _CACHE is not None
    return {_CACHE: cache}


class PromptCache(DynamicCache):  # type: ignore[misc]
    """A KV cache with values that are computed once, when a prompt is read, for each row of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.of_prompt: dict[int, Tensor] = {}
        """By decoder layer: a tensor with one row for each row of the batch."""

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.of_prompt = {layer: values[indices] for layer, values in self.of_prompt.items()}


def prompt_cache(kwargs: dict[str, Any]) -> PromptCache | None:
    """The cache among the keyword arguments of a model's forward, if it is a `PromptCache`."""
    assert _CACHE is not None
    cache = kwargs.get(_CACHE)
    return cache if isinstance(cache, PromptCache) else None


def keep_in_cache(cache: DynamicCache, select: Callable[[Tensor], Tensor]) -> None:
    """Replace every layer's keys and values [rows, heads, positions, size] with what `select` returns for them."""
    for layer in cache.layers:
        layer.keys = select(layer.keys)
        layer.values = select(layer.values)


def encoded_images(image_tokens: Tensor) -> dict[str, Any]:
    """Keyword arguments that pass image tokens [images, tokens, width] instead of pixels to a multimodal model."""
    return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=tuple(image_tokens))}}


def brings_images(kwargs: dict[str, Any]) -> bool:
    """Whether the keyword arguments of a multimodal model's forward contain images, as pixels or encoded."""
    encoded = (kwargs.get("mm_encoder_outputs") or {}).get("image")
    return kwargs.get("pixel_values") is not None or encoded is not None


def checkpoint_decoder(decoder: Any, *, reentrant: bool, except_layers: list[int]) -> None:
    """Enable gradient checkpointing for a decoder, except for some layers."""
    decoder.activation_checkpointing_enable({"use_reentrant": reentrant})
    for layer in except_layers:
        decoder.layers[layer].gradient_checkpointing = False
    if reentrant:
        decoder.enable_input_require_grads()


def is_recomputed(layer: Any) -> bool:
    """Whether the current forward pass of a decoder layer is recomputed in the backward pass."""
    return bool(layer.gradient_checkpointing and layer.training and torch.is_grad_enabled())


def one_device(arguments: TrainingArguments) -> TrainingArguments:
    """Disable nn.DataParallel, which cannot split the images and the text of a batch consistently."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def own_precision(arguments: TrainingArguments) -> TrainingArguments:
    """Ignore the precision that accelerate's launcher sets through the environment."""
    arguments.mixed_precision = "fp16" if arguments.fp16 else "no"
    return arguments


def quiet_length_warning(tokenizer: Any) -> None:
    """Suppress a tokenizer's warning about long texts; medalign checks lengths against the model's positions."""
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True


class StepwiseTrainer(Trainer):  # type: ignore[misc]
    """transformers' Trainer with public names for the steps that medalign overrides.

    Subclasses override the methods below; only this class uses transformers' private names.
    """

    def train_order(self) -> Sized | None:
        """Return the order of the training samples."""
        raise NotImplementedError

    def load_weights(self, checkpoint: Path) -> None:
        """Load a checkpoint's trained parameters into the model."""
        raise NotImplementedError

    def save_optimizer(self, folder: Path) -> None:
        """Write the states of optimizer and scheduler; every process calls this."""
        raise NotImplementedError

    def load_optimizer(self, checkpoint: Path) -> None:
        """Load what `save_optimizer` wrote."""
        raise NotImplementedError

    def write_checkpoint(self, folder: Path, write: Callable[[], None]) -> None:
        """Write a checkpoint by calling `write`, which returns after all processes have written their files."""
        raise NotImplementedError

    def load_random_state(self, checkpoint: Path, load: Callable[[], None]) -> None:
        """Restore this process's random state from a checkpoint by calling `load`."""
        raise NotImplementedError

    def end_step(self, gradient_norm: Tensor | float | None) -> None:
        """Called once in every optimizer step before weights are updated, with the gradient norm before clipping."""
        raise NotImplementedError

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, None, None]:
        """Return the loss of an evaluation batch, without logits."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss: Tensor = self.compute_loss(model, inputs)
        return loss.detach(), None, None

    def _prepare_input(self, data: Any) -> Any:
        """Move a batch to the device without a cast; with DeepSpeed, transformers would cast it to the model dtype."""
        if isinstance(data, Tensor):
            return data.to(self.args.device)
        return super()._prepare_input(data)

    def get_train_dataloader(self) -> Any:
        """Use transformers' data loader, but seed its workers with a separate generator."""
        loader = super().get_train_dataloader()
        getattr(loader, "base_dataloader", loader).generator = torch.Generator().manual_seed(self.args.seed)
        return loader

    def stop_workers(self) -> None:
        """Stop the persistent workers of the data loaders, by dropping the last references to the loaders."""
        self.callback_handler.train_dataloader = self.callback_handler.eval_dataloader = None
        self._eval_dataloaders: dict[str, Any] = {}
        self.accelerator._dataloaders.clear()  # `free_memory` would also shut down DeepSpeed's engine
        gc.collect()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.train_order()

    def _get_eval_sampler(self, eval_dataset: Any) -> range:
        return range(len(eval_dataset))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.load_weights(Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        save = super()._save_checkpoint

        def write() -> None:
            save(model, trial)
            self.accelerator.wait_for_everyone()  # each process writes its random state

        self.write_checkpoint(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", write)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        norm: Tensor | float | None = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.end_step(norm)
        return norm

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
        else:
            self.save_optimizer(Path(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        load = super()._load_rng_state
        if checkpoint is not None:
            self.load_random_state(Path(checkpoint), lambda: load(checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            self.load_optimizer(Path(checkpoint))

"""Loading published LLaVA-Med-1.5, HuatuoGPT-Vision and LLaVA-1.5 folders as transformers' Llava.

The model is built without memory for its weights, which are then assigned file by file, so the peak is about one copy
of the weights. No code of the checkpoint is run and nothing outside its folder is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoModelForImageTextToText,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from ....errors import InputError
from ...file_errors import reading
from ..base_files import check_finite_model, check_no_adapter, read_generation
from ..image_token import add_image_token, read_tokenizer
from .original_config import check_supported, llava_config, read_config, text_config
from .original_format import (
    COMPUTED,
    INPUT_TABLE,
    OUTPUT_TABLE,
    TOWER_LEFT_OUT,
    TOWER_PREFIX,
    TOWER_RENAMES,
    Family,
    find_family,
)
from .tensor_matching import Shape, match_tensors
from .vision_tower import TowerFolder, find_tower
from .weight_index import StoredTensor, find_weight_files, list_tensors, open_weights


@dataclass(frozen=True, kw_only=True)
class OriginalCheckpoint:
    """A complete original folder whose weights have not been read yet."""

    folder: Path
    family: Family
    config: LlavaConfig
    tokenizer: PreTrainedTokenizerBase
    """Contains `<image>`, with an id that was unused."""
    tower: TowerFolder
    tensors: dict[str, StoredTensor]
    """Stored tensor of each of transformers' keys."""
    names: dict[str, str]
    """Original name of each of transformers' keys."""
    rows: int
    """Rows of the published embedding tables; the model may have one more, for `<image>`."""
    image_aspect_ratio: str | None
    """How the original project prepared images; students always pad."""
    generation: GenerationConfig
    """Special tokens only, from the folder's generation_config.json, else from its config.json."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision that the language model is stored in."""
        return self.tensors[INPUT_TABLE].dtype

    def loaded_shape(self, key: str) -> Shape:
        """Shape of a tensor in the model, where the embedding tables have a row for `<image>`."""
        shape = self.tensors[key].shape
        return (self.config.text_config.vocab_size, *shape[1:]) if key in (INPUT_TABLE, OUTPUT_TABLE) else shape


def is_original(folder: Path) -> bool:
    """Whether a folder contains a checkpoint in the original LLaVA format.

    Raises:
        InputError: it is not a model folder.
    """
    config = read_config(folder)
    return find_family(config) is not None and "text_config" not in config


def read_original(folder: Path) -> OriginalCheckpoint:
    """Check a folder by its config, its tokenizer and the headers of its weight files.

    Raises:
        InputError: it is not in the original format, is incomplete, or its weights do not match its config.json.
    """
    config = read_config(folder)
    family = find_family(config)
    if family is None:
        raise InputError(
            f"{folder} is not a supported original checkpoint: its architectures are {config.get('architectures')}"
        )
    check_supported(folder, config)
    check_no_adapter(folder)
    tower = find_tower(folder, config)
    with reading(folder / "config.json"):
        text = text_config(config, family)
    tokenizer = read_tokenizer(folder, CONFIG_MAPPING[family.tokenizer]())
    rows = text.vocab_size
    image_token_id = _add_image_token(folder, tokenizer, rows)
    text.vocab_size = max(rows, image_token_id + 1)
    text.pad_token_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    with reading(folder / "config.json"):
        llava = llava_config(
            text,
            tower.config,
            image_token_id=image_token_id,
            feature_layer=config.get("mm_vision_select_layer", -2),
        )
        expected = expected_shapes(llava, rows=rows)
    tensors, names = _find_tensors(folder, family, tower, expected, tied=text.tie_word_embeddings)
    return OriginalCheckpoint(
        folder=folder,
        family=family,
        config=llava,
        tokenizer=tokenizer,
        tower=tower,
        tensors=tensors,
        names=names,
        rows=rows,
        image_aspect_ratio=config.get("image_aspect_ratio"),
        generation=original_generation(folder, llava),
    )


def _add_image_token(folder: Path, tokenizer: PreTrainedTokenizerBase, rows: int) -> int:
    """Add `<image>` to the tokenizer, with the id of a spare row of the tables if there is one, else of a new row."""
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise InputError(f"{folder}: the tokenizer has ids up to {highest}, but vocab_size in config.json is {rows}")
    return add_image_token(tokenizer)


def expected_shapes(config: LlavaConfig, *, rows: int) -> dict[str, Shape]:
    """Shape of every tensor in a checkpoint with this configuration and `rows` rows in the embedding tables."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    return shapes | {key: (rows, shapes[key][1]) for key in (INPUT_TABLE, OUTPUT_TABLE)}


def _find_tensors(
    folder: Path, family: Family, tower: TowerFolder, expected: dict[str, Shape], *, tied: bool
) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Find the stored tensor and the original name of each of the model's keys."""
    stored = list_tensors(find_weight_files(folder))
    if not stored:
        raise InputError(f"{folder} has no weights: no model.safetensors, pytorch_model.bin or index of them")
    if tied and "lm_head.weight" not in stored:
        del expected[OUTPUT_TABLE]
    where = f"{folder} ({family.name}, {family.architecture})"
    has_tower = any(name.startswith("model.vision_tower.") for name in stored)
    language = {key: shape for key, shape in expected.items() if has_tower or not key.startswith(TOWER_PREFIX)}
    separate = {} if has_tower else _separate_tower(folder, tower)
    names = match_tensors(_shapes(stored), language, family.renames, where)
    if not has_tower:
        vision = {key: shape for key, shape in expected.items() if key.startswith(TOWER_PREFIX)}
        names |= match_tensors(
            _shapes(separate), vision, TOWER_RENAMES, f"{tower.folder} (the vision tower of {folder})"
        )
        stored |= separate
    return {key: stored[name] for name, key in names.items()}, {key: name for name, key in names.items()}


def _separate_tower(folder: Path, tower: TowerFolder) -> dict[str, StoredTensor]:
    """List the tensors in the tower's folder, for a checkpoint that stores the tower separately."""
    files = [] if tower.folder is None else find_weight_files(tower.folder)
    if not files:
        expected = tower.folder or folder / "vit" / Path(tower.name).name
        raise InputError(
            f"{folder} has no weights for its vision tower {tower.name!r}: there is no model.vision_tower.* in its "
            f"files, and no weight file in {expected}. medalign never downloads a tower, because one that was trained "
            "with the model differs from the published one. If the model was published without its tower, as "
            f"LLaVA-1.5 was, put the tower's folder (config.json and weights) at {expected}"
        )
    tensors = list_tensors(files)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(TOWER_LEFT_OUT)}


def _shapes(tensors: Mapping[str, StoredTensor]) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def load_original(checkpoint: OriginalCheckpoint, dtype: torch.dtype | None = None) -> LlavaForConditionalGeneration:
    """Load the weights, file by file; `dtype=None` keeps the precision of the language model's tensors.

    Raises:
        InputError: a weight file is damaged, contains values that are not finite in this precision, or buffers that
            contradict config.json.
    """
    dtype = dtype or checkpoint.dtype
    with init_empty_weights():
        model = AutoModelForImageTextToText.from_config(checkpoint.config, attn_implementation="sdpa", dtype=dtype)
    for path in sorted({tensor.file for tensor in checkpoint.tensors.values()}):
        keys = [key for key, tensor in checkpoint.tensors.items() if tensor.file == path]
        with open_weights(path) as weights:
            _check_buffers(path, {name: weights.read(name) for name in weights.names if name.endswith(COMPUTED)}, model)
            values = {key: weights.read(checkpoint.names[key]).to(dtype) for key in keys}
            for table in {INPUT_TABLE, OUTPUT_TABLE} & values.keys():
                values[table] = _with_rows(values[table], checkpoint.config.text_config.vocab_size)
            model.load_state_dict(values, strict=False, assign=True)
    model.tie_weights()
    unloaded = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    assert not unloaded, unloaded
    check_finite_model(model, checkpoint.folder)
    model.generation_config = checkpoint.generation
    model.name_or_path = str(checkpoint.folder)  # as from_pretrained does; peft saves it in adapters
    return model.eval()


def _with_rows(table: Tensor, rows: int) -> Tensor:
    """Append rows to the table, each the mean of the existing rows.

    The logit of such an output row is the mean of all logits: never the largest, and by Jensen's inequality its
    probability is never above 1/rows. The existing rows, and so all other logits, do not change.
    """
    if rows == len(table):
        return table
    mean = table.float().mean(dim=0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(rows - len(table), -1)])


def original_generation(folder: Path, config: LlavaConfig) -> GenerationConfig:
    """Generation config with special tokens only, since callers choose the decoding. `<image>` is never generated."""
    text = config.text_config
    stored = read_generation(folder)
    return GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id if stored is None or stored.eos_token_id is None else stored.eos_token_id,
        pad_token_id=text.pad_token_id,
        suppress_tokens=[config.image_token_id],
    )


def _check_buffers(path: Path, buffers: Mapping[str, Tensor], model: LlavaForConditionalGeneration) -> None:
    """Check that saved rotary frequencies and position ids are those that config.json implies."""
    frequencies = model.model.language_model.rotary_emb.inv_freq
    for name, value in buffers.items():
        if name.endswith(".inv_freq"):
            same = value.shape == frequencies.shape and torch.allclose(value.float(), frequencies, rtol=1e-2)
        else:
            same = torch.equal(value.flatten().long(), torch.arange(value.numel()))
        if not same:
            raise InputError(f"{path}: {name} does not match config.json (rope_theta, positions)")

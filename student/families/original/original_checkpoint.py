"""LLaVA-Med-1.5, HuatuoGPT-Vision and LLaVA-1.5 folders as published, loaded as transformers' Llava.

The model is built without memory for its weights; then every tensor of every file is put into its place, so the peak is
about one copy of the weights. No code of the checkpoint is run and nothing outside its folder is read.
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
    """An original folder that was found whole; its weights have not been read yet."""

    folder: Path
    family: Family
    config: LlavaConfig
    tokenizer: PreTrainedTokenizerBase
    """Knows `<image>`, at an id that was free."""
    tower: TowerFolder
    tensors: dict[str, StoredTensor]
    """Where the tensor of each of transformers' keys lies."""
    names: dict[str, str]
    """Original name of each of transformers' keys."""
    rows: int
    """Rows of the embedding tables as published; the model may have one more, for `<image>`."""
    image_aspect_ratio: str | None
    """How the project prepared images; students always pad."""
    generation: GenerationConfig
    """Special tokens alone: those of the folder's generation_config.json, else of its config.json."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision that the language model is stored in."""
        return self.tensors[INPUT_TABLE].dtype

    def loaded_shape(self, key: str) -> Shape:
        """Shape of a tensor in the model: the tables with a row for `<image>`."""
        shape = self.tensors[key].shape
        return (self.config.text_config.vocab_size, *shape[1:]) if key in (INPUT_TABLE, OUTPUT_TABLE) else shape


def is_original(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of the original LLaVA format.

    Raises:
        InputError: it is no model folder.
    """
    config = read_config(folder)
    return find_family(config) is not None and "text_config" not in config


def read_original(folder: Path) -> OriginalCheckpoint:
    """Check a folder from its config, tokenizer and the headers of its weight files.

    Raises:
        InputError: it is not of the format, not whole, or its weights do not fit its config.json.
    """
    config = read_config(folder)
    family = find_family(config)
    if family is None:
        raise InputError(f"{folder} is none of the original checkpoints: architectures {config.get('architectures')}")
    check_supported(folder, config)
    check_no_adapter(folder)
    tower = find_tower(folder, config)
    with reading(folder / "config.json"):
        text = text_config(config, family)
    tokenizer = read_tokenizer(folder, CONFIG_MAPPING[family.tokenizer]())
    rows = text.vocab_size
    image_token_id = _place_image_token(folder, tokenizer, rows)
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


def _place_image_token(folder: Path, tokenizer: PreTrainedTokenizerBase, rows: int) -> int:
    """Add `<image>` to the tokenizer: a spare row of the tables where there is one, else the row after the last."""
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise InputError(f"{folder}: its tokenizer has ids up to {highest}, but vocab_size in config.json is {rows}")
    return add_image_token(tokenizer)


def expected_shapes(config: LlavaConfig, *, rows: int) -> dict[str, Shape]:
    """Shape of every tensor that a checkpoint of this configuration has, with `rows` in the embedding tables."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    return shapes | {key: (rows, shapes[key][1]) for key in (INPUT_TABLE, OUTPUT_TABLE)}


def _find_tensors(
    folder: Path, family: Family, tower: TowerFolder, expected: dict[str, Shape], *, tied: bool
) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Where each of the model's tensors lies, and its original name."""
    found = list_tensors(find_weight_files(folder))
    if not found:
        raise InputError(f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, nor an index")
    if tied and "lm_head.weight" not in found:
        del expected[OUTPUT_TABLE]
    where = f"{folder} ({family.name}, {family.architecture})"
    has_tower = any(name.startswith("model.vision_tower.") for name in found)
    language = {key: shape for key, shape in expected.items() if has_tower or not key.startswith(TOWER_PREFIX)}
    apart = {} if has_tower else _apart_tower(folder, tower)
    names = match_tensors(_shapes(found), language, family.renames, where)
    if not has_tower:
        seen = {key: shape for key, shape in expected.items() if key.startswith(TOWER_PREFIX)}
        names |= match_tensors(_shapes(apart), seen, TOWER_RENAMES, f"{tower.folder} (the vision tower of {folder})")
        found |= apart
    return {key: found[name] for name, key in names.items()}, {key: name for name, key in names.items()}


def _apart_tower(folder: Path, tower: TowerFolder) -> dict[str, StoredTensor]:
    """Tensors of the tower's folder, for a checkpoint that keeps them apart."""
    files = [] if tower.folder is None else find_weight_files(tower.folder)
    if not files:
        place = tower.folder or folder / "vit" / Path(tower.name).name
        raise InputError(
            f"{folder} has no weights of its vision tower {tower.name!r}: none named model.vision_tower.* in its "
            f"files, and none in {place}. They are never fetched from elsewhere, because a tower that was trained "
            "with the model is another than the one of that name; where the model was published without its tower, "
            f"as LLaVA-1.5 was, put the tower's folder (config.json and weights) at {place}"
        )
    tensors = list_tensors(files)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(TOWER_LEFT_OUT)}


def _shapes(tensors: Mapping[str, StoredTensor]) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def load_original(checkpoint: OriginalCheckpoint, dtype: torch.dtype | None = None) -> LlavaForConditionalGeneration:
    """Read the weights, file by file; `dtype=None` keeps the precision of the language model's tensors.

    Raises:
        InputError: a weight file is damaged, holds values that are not finite in this precision, or buffers that
            contradict config.json.
    """
    dtype = dtype or checkpoint.dtype
    with init_empty_weights():
        model = AutoModelForImageTextToText.from_config(checkpoint.config, attn_implementation="sdpa", dtype=dtype)
    for path in sorted({tensor.file for tensor in checkpoint.tensors.values()}):
        keys = [key for key, tensor in checkpoint.tensors.items() if tensor.file == path]
        with open_weights(path) as weights:
            _check_computed(
                path, {name: weights.read(name) for name in weights.names if name.endswith(COMPUTED)}, model
            )
            read = {key: weights.read(checkpoint.names[key]).to(dtype) for key in keys}
            for table in {INPUT_TABLE, OUTPUT_TABLE} & read.keys():
                read[table] = _with_rows(read[table], checkpoint.config.text_config.vocab_size)
            model.load_state_dict(read, strict=False, assign=True)
    model.tie_weights()
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    assert not empty, empty
    check_finite_model(model, checkpoint.folder)
    model.generation_config = checkpoint.generation
    model.name_or_path = str(checkpoint.folder)  # as from_pretrained does; peft writes it into adapters
    return model.eval()


def _with_rows(table: Tensor, rows: int) -> Tensor:
    """The table with new rows at the end, each the mean of the known ones.

    As an output row, its logit is then the mean of all logits: never the largest, and by Jensen's inequality never
    above 1/rows in probability. The known rows, and so all other logits, are untouched.
    """
    if rows == len(table):
        return table
    mean = table.float().mean(dim=0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(rows - len(table), -1)])


def original_generation(folder: Path, config: LlavaConfig) -> GenerationConfig:
    """Special tokens alone: how answers are searched for is the caller's choice. `<image>` is never an answer."""
    text = config.text_config
    stored = read_generation(folder)
    return GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id if stored is None or stored.eos_token_id is None else stored.eos_token_id,
        pad_token_id=text.pad_token_id,
        suppress_tokens=[config.image_token_id],
    )


def _check_computed(path: Path, buffers: Mapping[str, Tensor], model: LlavaForConditionalGeneration) -> None:
    """Saved rotary frequencies and position numbers must be the ones that config.json implies."""
    frequencies = model.model.language_model.rotary_emb.inv_freq
    for name, found in buffers.items():
        if name.endswith(".inv_freq"):
            same = found.shape == frequencies.shape and torch.allclose(found.float(), frequencies, rtol=1e-2)
        else:
            same = torch.equal(found.flatten().long(), torch.arange(found.numel()))
        if not same:
            raise InputError(f"{path}: {name} is not what config.json implies (rope_theta, positions)")

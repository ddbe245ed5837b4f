"""Full-size original checkpoints as sparse files: the headers are real, the weights are holes, which read as zeros."""

import json
import math
import struct
from dataclasses import replace
from pathlib import Path

from originals import (
    FULL_SIZE,
    TOWER_NAME,
    llava_config,
    text_shapes,
    tower_config,
    tower_shapes,
    write_qwen,
    write_sentencepiece,
)
from tokenizers import Tokenizer


def write_sparse(folder: Path, family: str, *, layers: int | None = None) -> Path:
    """A published 7B student in bfloat16, with fewer decoder layers where `layers` says so."""
    folder.mkdir(parents=True)
    shape = FULL_SIZE[family]
    shape = shape if layers is None else replace(shape, layers=layers)
    if family == "huatuo":
        write_qwen(folder)
        end = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|endoftext|>")
        shape = replace(shape, extra={"end": end})
        tower = folder / "vit/clip_vit_large_patch14_336"
        tower.mkdir(parents=True)
        (tower / "config.json").write_text(json.dumps(tower_config(shape)))
    else:
        write_sentencepiece(folder)
    (folder / "config.json").write_text(json.dumps(llava_config(shape)))
    shapes = text_shapes(shape) | {TOWER_NAME + name: size for name, size in tower_shapes(shape).items()}
    header, end = {}, 0
    for name, size in shapes.items():
        start, end = end, end + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + end)
    return folder

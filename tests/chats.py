"""Student folders with transformers' processor, and conversations as it takes them."""

import shutil
from pathlib import Path
from typing import Any, Literal

from medalign.progress import Silent
from medalign.student.folders.convert import convert_original
from originals import write_original
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, LlavaProcessor


def write_plain_folder(kind: Literal["bytes", "sentencepiece"], student_folder: Path, folder: Path) -> Path:
    """A student with no chat template; its tokenizer is one of bytes, or one that adds spaces."""
    if kind == "bytes":
        shutil.copytree(student_folder, folder)
        processor = LlavaProcessor(
            CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
            AutoTokenizer.from_pretrained(folder),
            patch_size=8,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )
        processor.save_pretrained(folder)
    else:
        source = write_original(folder.parent / "original", "llava").folder
        convert_original(source, folder, dtype=None, progress=Silent())
        (folder / "chat_template.jinja").unlink()  # that of its prompt template
    return folder


def messages_of(
    question: str, images: int, history: tuple[tuple[str, str], ...] = (), answer: str | None = None
) -> list[dict[str, Any]]:
    """The messages of a conversation, with blank images in the first one."""
    first: list[dict[str, Any]] = [{"type": "image", "image": Image.new("RGB", (24, 24))} for _ in range(images)]
    messages: list[dict[str, Any]] = []
    for asked, answered in (*history, (question, answer)):
        messages.append({"role": "user", "content": [*first, {"type": "text", "text": asked}]})
        first = []
        if answered is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answered}]})
    return messages

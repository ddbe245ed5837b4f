"""Decoding methods at work on the tiny student: tokens of answers, and the scores that a search was given."""

import sys
from pathlib import Path

import torch
from medalign.student.decoding import choose_decoding
from medalign.student.decoding.generation import start_run
from medalign.student.loading.student_loading import open_student
from straight_pass import image_tokens
from students import LAYER, sample, write_images
from torch import Tensor


def rotated_student(folder: Path):
    """The tiny student with a W that turns its image tokens."""
    torch.manual_seed(0)  # a fixture of a module is made before the one that seeds each test
    student = open_student(folder, layers=[LAYER], rotation="full", template="vicuna_v1")
    with torch.no_grad():
        student.model.rotations[LAYER].weight.normal_(std=0.1)
    return student


def questions(folder: Path, count: int = 8):
    """Samples of different lengths with one image each; every fourth has two."""
    paths = write_images(folder, [(24, 24)] * (count + 1))
    words = ["what", "is", "seen", "here", "and", "where", "does", "it", "lie"]
    return [
        sample(" ".join(words[: 2 + index]) + "?", "yes", *paths[index : index + (2 if index % 4 == 3 else 1)])
        for index in range(count)
    ]


def tokens(student, samples, name: str, *, length: int = 6, **settings) -> list[list[int]]:
    """Each answer's tokens, the end-of-sequence token included."""
    decoding = choose_decoding(name, settings, max_new_tokens=length)
    run = start_run(student, samples, length)
    with torch.inference_mode():
        rows = decoding.method.answer(run, decoding.settings).tolist()
    ends = set(run.ends.tolist())
    return [row[: next((place for place, token in enumerate(row) if token in ends), len(row)) + 1] for row in rows]


def scores(student, samples, name: str, said: Tensor, monkeypatch, **settings) -> list[Tensor]:
    """What a method's search gets to see while `said` [B, T] is the answer: T + 1 tensors [B, V]."""
    decoding = choose_decoding(name, settings, max_new_tokens=said.shape[1] + 1)
    scorers = []

    def keep(run, scorer, settings):
        scorers.append(scorer)
        return said

    monkeypatch.setattr(sys.modules[decoding.method.answer.__module__], "search", keep)
    run = start_run(student, samples, said.shape[1] + 1)
    with torch.inference_mode():
        decoding.method.answer(run, decoding.settings)
        return [scorers[0].start(), *(scorers[0].advance(column) for column in said.T)]


def written_out(student, question) -> tuple[list[int], Tensor | None]:
    """A sample's prompt ids, and its image tokens [images * patches, width]."""
    run = start_run(student, [question], 1)
    pixels = run.pixel_values
    return run.prompt.input_ids[0].tolist(), None if pixels is None else image_tokens(student, pixels).detach()

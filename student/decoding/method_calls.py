"""Calling a decoding method, which may be a user's own, and checking what it does."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ...errors import InputError, MedalignError
from .core.batch_run import Run
from .core.scorer import function_name
from .method_code import code_of
from .method_registry import Decoding

_GUIDE = "(docs/how-to/own-decoding.md)"


def call_method(run: Run, decoding: Decoding) -> Int[Tensor, "batch length"]:
    """The token ids of a batch of answers.

    Raises:
        InputError: the method returns no token ids, logits or scores are not finite, or a method that is not
            medalign's raises an error of its own.
    """
    try:
        found = decoding.method.answer(run, decoding.settings)
    except (MedalignError, MemoryError, torch.OutOfMemoryError, Warning):
        raise
    except (Exception, SystemExit) as error:
        if code_of(decoding.method) is None:
            raise
        said = ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split()).rstrip(".")]))
        raise InputError(
            f"the decoding method {decoding.name!r} raised {said} (at {_place(error, decoding)}, in the batch of "
            f"question {run.question_ids[0]!r}, with {decoding.settings}). Correct the method {_GUIDE}"
        ) from error
    tokens = _check_tokens(found, run.batch, decoding)
    check_finite(run, decoding)
    return tokens


def _place(error: BaseException, decoding: Decoding) -> str:
    """File and line of the error: the innermost in the method's own file, else where its function begins."""
    code = getattr(decoding.method.answer, "__code__", None)
    if code is None:
        return repr(decoding.method.answer)
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == code.co_filename), None)
    return f"{Path(code.co_filename).name}:{line or code.co_firstlineno}"


def _check_tokens(found: Any, batch: int, decoding: Decoding) -> Int[Tensor, "batch length"]:
    """Check what a decoding method returned, by its shape and type alone, which the GPU is not waited for.

    Raises:
        InputError: it is not a tensor of integers with one row for each of the `batch` questions.
    """
    if not isinstance(found, Tensor):
        what = f"an object of type {type(found).__name__}"
    elif found.ndim != 2 or len(found) != batch:
        what = f"a tensor of shape {list(found.shape)}"
    elif found.dtype == torch.bool or found.is_floating_point() or found.is_complex():
        what = f"a tensor of type {str(found.dtype).removeprefix('torch.')}"
    else:
        return found
    raise InputError(
        f"the decoding method {decoding.name!r} returned {what}, but should return token ids: a tensor of integers of "
        f"shape [{batch}, length], one row for each question of the batch. {_correct(decoding)}"
    )


def check_ids(ids: Sequence[int], vocabulary: int, decoding: Decoding) -> None:
    """Check the token ids of one answer, before its end token.

    Raises:
        InputError: one is outside of the vocabulary, or there are more than `max_new_tokens`.
    """
    outside = next((token for token in ids if not 0 <= token < vocabulary), None)
    if outside is not None:
        raise InputError(
            f"the decoding method {decoding.name!r} returned the token id {outside}, but the student's vocabulary has "
            f"the ids 0 to {vocabulary - 1}. {_correct(decoding)}"
        )
    if len(ids) > decoding.max_new_tokens:
        raise InputError(
            f"the decoding method {decoding.name!r} returned an answer of {len(ids)} tokens, but max_new_tokens is "
            f"{decoding.max_new_tokens} (`run.max_new_tokens`). {_correct(decoding)}"
        )


def _correct(decoding: Decoding) -> str:
    answer = decoding.method.answer
    return f"Correct the return value of {function_name(answer)} {_GUIDE}"


def check_finite(run: Run, decoding: Decoding) -> None:
    """Check that the logits and scores of a batch were finite.

    Raises:
        InputError: the logits of a question, or the method's scores, are not finite.
    """
    non_finite = run.watch.first()
    if non_finite is None:
        return
    sample, kind = non_finite
    dtype = str(run.llava.dtype).removeprefix("torch.")
    start = f"question {run.question_ids[sample]!r}: {kind} are not finite ({decoding.name} decoding, {dtype})"
    if kind == "scores":
        raise InputError(
            f"{start}, although the logits are: they are NaN or infinite, or exclude every token. "
            f"{_remedy_for_scores(decoding)}"
        )
    if dtype == "float16":
        raise InputError(f"{start}. The largest float16 value is 65,504; use --dtype bfloat16 or float32")
    raise InputError(
        f"{start}. The student's weights contain NaN or infinite values, or values so large that they overflow. Copy "
        "the weights again, or use an earlier checkpoint of the training run"
    )


def _remedy_for_scores(decoding: Decoding) -> str:
    if code_of(decoding.method) is None:
        return f"Choose smaller weights than {decoding.settings}"
    answer = decoding.method.answer
    return f"Correct {function_name(answer)} {_GUIDE}, or use other settings than {decoding.settings}"

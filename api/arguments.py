"""Checks of the arguments of the Python API, equal to the checks of the command's options."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError, SettingsError
from ..path_checks import path_text
from ..pipeline.devices import is_first_process
from ..pipeline.extraction.extract import parse_grid
from ..pipeline.stores.output_places import check_output
from ..pipeline.terminal import Bars
from ..plain_text import is_url, without_secrets
from ..progress import Progress, Silent
from ..suggestions import suggestion
from ..teacher_cache.geometry.patch_grid import PatchGrid
from ..teacher_cache.images import ImageLike

AnyPath = str | os.PathLike[str]
"""A path on this machine."""

Images = ImageLike | Sequence[ImageLike]
"""One image or several: paths, Pillow images, or numpy arrays of uint8."""


@contextmanager
def progress_of(progress: bool | Progress) -> Iterator[Progress]:
    """No output for False, bars on the terminal for True (under torchrun in the first process), else the object.

    Raises:
        SettingsError: It is anything else.
    """
    if not isinstance(progress, bool | Progress):
        raise SettingsError(
            "progress must be True, False, or an object with the methods start, advance and note, not "
            f"{type(progress).__name__}"
        )
    if not isinstance(progress, bool):
        yield progress
    elif not progress or not is_first_process():
        yield Silent()
    else:
        with Bars() as bars:
            yield bars


def local_path(name: str, path: Any) -> Path:
    """Check that the value of argument `name` is a local path.

    Raises:
        SettingsError: It is not a path, is empty, or is a URL, which would become a folder on this machine.
    """
    text = path_text(name, path)
    if is_url(text):
        raise SettingsError(
            f"{name}: {without_secrets(text)} is a URL, but a local path is needed: "
            "`medalign store push` writes to URLs, and `medalign.open_store` reads from them"
        )
    return Path(text)


def optional_path(name: str, path: AnyPath | None) -> Path | None:
    """`local_path`, or None."""
    return None if path is None else local_path(name, path)


def output_path(path: AnyPath) -> Path:
    """Check the argument `out`, as the command checks `--out`.

    Raises:
        SettingsError: It is not a local path, or is inside a teacher store.
        InputError: It is a pipe, a socket or a device, or a link to one.
    """
    checked = local_path("out", path)
    check_output(checked, "out")
    return checked


def named_output(path: AnyPath) -> Path:
    """`output_path`, which must end in a name, as a new store needs.

    Raises:
        SettingsError: It does not.
    """
    checked = output_path(path)
    if not checked.name:
        raise SettingsError(f"out: {os.fspath(path)!r} does not end in a name; pass a new file or folder in it")
    return checked


def check_choices(**choices: tuple[Any, Sequence[str | None]]) -> None:
    """Check arguments that have one of a few values, given as NAME=(value, allowed).

    Raises:
        SettingsError: Some have other values; the message lists all of them.
    """
    problems = []
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            names = [choice for choice in allowed if choice is not None]
            problems.append(f"{name}: {value!r} is not one of {', '.join(names)}{suggestion(str(value), names)}")
    if problems:
        raise SettingsError("\n".join(problems))


def check_positive(**numbers: Any) -> None:
    """Check counts: whole numbers of at least 1, or None; one that must not be None is given as `NAME=(number,)`.

    Raises:
        SettingsError: Some are not; the message lists all of them.
    """
    problems = []
    for name, given in numbers.items():
        number = given[0] if isinstance(given, tuple) else given
        if number is given and number is None:
            continue
        if not isinstance(number, int | np.integer) or isinstance(number, bool):
            problems.append(f"{name} must be a whole number of at least 1, got {number!r}")
        elif number < 1:
            problems.append(f"{name} must be at least 1, got {number}")
    if problems:
        raise SettingsError("\n".join(problems))


def check_whole_numbers(**numbers: Any) -> None:
    """Check whole numbers of at least 0.

    Raises:
        SettingsError: Some are not; the message lists all of them.
    """
    problems = [
        f"{name} must be a whole number of at least 0, got {number!r}"
        for name, number in numbers.items()
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def check_texts(**texts: Any) -> None:
    """Check arguments that are text, or None; one that must not be None is given as `NAME=(text,)`.

    Raises:
        SettingsError: Some are not; the message lists all of them.
    """
    problems = []
    for name, given in texts.items():
        text = given[0] if isinstance(given, tuple) else given
        if not isinstance(text, str) and (text is not None or given is not text):
            problems.append(f"{name} must be text, not {type(text).__name__}")
    if problems:
        raise SettingsError("\n".join(problems))


def check_overrides(name: str, overrides: Any, example: str) -> None:
    """Check settings that are given by name, as a mapping or as a list of texts such as `example`.

    Raises:
        SettingsError: They are not.
    """
    is_list = isinstance(overrides, list | tuple)
    if not is_list and not isinstance(overrides, Mapping):
        raise SettingsError(f"{name} must be a dictionary, or a list such as [{example!r}], not {overrides!r}")
    if wrong := [item for item in overrides if not isinstance(item, str)]:
        raise SettingsError(f"{name}: the name of a setting must be text, not {wrong[0]!r}")


def check_grid(grid: Any) -> PatchGrid:
    """Parse a grid such as `24x24`.

    Raises:
        SettingsError: It is not a grid.
    """
    return parse_grid(grid if isinstance(grid, str) else repr(grid))


def images_of(images: Images) -> tuple[ImageLike, ...]:
    """One image or several as a tuple.

    Raises:
        InputError: An item is not an image.
    """
    if isinstance(images, list | tuple):
        return tuple(map(_image, images))
    return (_image(images),)


def _image(image: Any) -> ImageLike:
    if isinstance(image, os.PathLike):
        return Path(image)
    if isinstance(image, str | Image.Image | np.ndarray):
        return image
    raise InputError(
        f"an image cannot be of type {type(image).__name__}: pass a path, a Pillow image or a numpy array of uint8"
    )

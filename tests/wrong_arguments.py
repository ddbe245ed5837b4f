"""wrong_arguments.py STORE: call the Python API with values of wrong types, and print what each call did, as JSON.

It runs in a process of its own, because the other tests run with types checked.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import medalign
from medalign.api.arguments import check_choices, check_grid, check_positive, check_texts, progress_of
from medalign.api.students import _questions

NO_PATHS: tuple[Any, ...] = (None, 5, b"store.zarr", ["a"], object())
NO_KEYS: tuple[Any, ...] = (123, None, b"x", (), [], Path("a.png"))


def outcome(call: Callable[[], Any]) -> list[Any]:
    """The error of a call: whether it is one to act on, its base classes, and its message; or its value."""
    try:
        return ["returned", repr(call())]
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return ["raised" if isinstance(error, medalign.MedalignError) else "crashed", kinds, str(error)]


def calls(location: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    store: Any = medalign.open_store(location)
    api: Any = medalign
    for key in NO_KEYS:
        yield "in", lambda key=key: key in store
        yield "get", lambda key=key: store.get(key, "default")
        yield "[]", lambda key=key: store[key]
        yield "missing", lambda key=key: store.missing([key]) == [key]
    for value in NO_PATHS:
        yield "path", lambda value=value: api.open_store(value)
        yield "path", lambda value=value: api.Manifest.read(value)
        yield "path", lambda value=value: store.for_image(value)
        yield "path", lambda value=value: api.load_teacher("phantom-tiny", value)
        yield "path", lambda value=value: api.load_student(value)
        yield "path", lambda value=value: api.compare(value, "out")
        yield "path", lambda value=value: api.evaluate("a", value, "out")
        if value is not None:
            yield "path", lambda value=value: api.open_store(location, hash_key=value)
            yield "path", lambda value=value: api.train({}, value)
            yield "path", lambda value=value: api.train(value, "out")
    for choice in (None, 5, ["pad"], {}):
        yield "choice", lambda choice=choice: check_choices(geometry=(choice, ("pad", "crop")))
    for grid in (8, (8, 8), None, b"8x8"):
        yield "grid", lambda grid=grid: check_grid(grid)
    for number in ("8", 1.5, True, float("nan"), [8], None):
        yield "number", lambda number=number: check_positive(batch_size=(number,))
    for text in (5, b"x", ["a"]):
        yield "text", lambda text=text: check_texts(question=(text,), card=text)
        yield "text", lambda text=text: api.evaluate("a", "m", "out", split=text)
        yield "text", lambda text=text: api.train({}, dry_run=True, card=text)
        yield "text", lambda text=text: _questions([("a.png", text)])
    for pairs in (("a.png", "Is it?"), ["a.png"], "ab", None, 5, {"a.png": "Is it?"}, [("a.png", "b", "c")]):
        yield "pairs", lambda pairs=pairs: _questions(pairs)
    for bars in ("yes", None, 5):
        yield "progress", lambda bars=bars: progress_of(bars).__enter__()
    for overrides in (5, "alignment.beta=1", {5: 1}, [5]):
        yield "overrides", lambda overrides=overrides: api.train({}, dry_run=True, overrides=overrides)
    for name in (None, 5, ["phantom-tiny"]):
        yield "name", lambda name=name: api.load_teacher(name, "weights")


if __name__ == "__main__":
    print(json.dumps([[kind, *outcome(call)] for kind, call in calls(sys.argv[1])]))

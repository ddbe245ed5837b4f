"""All that writes stores, run by a process that has imported everything and forks one child for each run.

Its children end before a given change of the file system (faults.c). Reads one JSON object a line, answers with one.
"""

import ctypes
import gc
import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import PIL.Image
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from extractions import options_of
from forgeries import version_1_store
from medalign.progress import Silent
from medalign.teacher_cache.extraction.extension import extend
from medalign.teacher_cache.extraction.recompute import TeacherAtHand
from medalign.teacher_cache.extraction.stage_one import ImageSource, Task, TeacherRecipe, extract, finish
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.sharing.destination import Destination
from medalign.teacher_cache.sharing.merge import merge
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.push import push
from medalign.teacher_cache.sharing.subset import Wanted, subset
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store.checking.format_conversion import convert
from medalign.teacher_cache.store.checking.signing import sign
from medalign.teacher_cache.store.signatures.signing_keys import SigningKey
from medalign.teacher_cache.workers.engines import Crew

for _late in ("zarr", "fsspec.implementations.local", "pyarrow.dataset", "dateutil.parser"):
    import_module(_late)  # what a run imports when it needs it
import_module("medalign.teacher_cache.compat.zarr")
import_module("medalign.teacher_cache.store.access.local_filesystem")
PIL.Image.init()
# One file at a time: two threads would mix what the library records of their renames.
import_module("medalign.teacher_cache.sharing.pull")._FILES_AT_ONCE = 1
Destination.uploads_at_once = 1

SIGNING_KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER_KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
Run = Callable[[Path, "Lab"], object]


class Notes(Silent):
    """Keeps what a command says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


class Lab:
    """A teacher and images, the last of which cannot be decoded."""

    def __init__(self, weights: str, images: list[tuple[str, str]]) -> None:
        self.recipe = TeacherRecipe(name="phantom-tiny", weights=weights)
        self.images = [ImageSource(Path(path), digest) for path, digest in images]
        self.notes = Notes()

    def extract(self, out: Path, images: list[ImageSource], task: Task | None = None, **options: Any) -> None:
        settings = {"grid": PatchGrid(6, 6), "batch_size": 2, "shard_rows": 2, "threads": 1, "decode_workers": 1}
        chosen = options_of(resume=task is None, task=task, **settings | options)
        extract(self.recipe, images, out, chosen, progress=self.notes)

    def extend(self, store: Path, images: list[ImageSource], **options: Any) -> None:
        extend(self.recipe, images, store, crew=Crew(decode_workers=1), progress=self.notes, **options)


def with_store(change: Callable[[Path], object] = lambda store: None, images: int = 4) -> Run:
    """A store of some images, and then a change of it."""

    def make(folder: Path, lab: Lab) -> None:
        lab.extract(folder / "s.zarr", lab.images[:images])
        change(folder / "s.zarr")

    return make


def with_tasks(folder: Path, lab: Lab) -> None:
    for number in (0, 1):
        lab.extract(folder / "s.zarr", lab.images[:4], Task(number=number, count=2))


def with_failure(folder: Path, lab: Lab) -> None:
    """One image that was not there, and is now."""
    moved = lab.images[3].path.rename(lab.images[3].path.with_suffix(".away"))
    try:
        lab.extract(folder / "s.zarr", lab.images[:4], unreadable=["permission denied"])
    finally:
        moved.rename(lab.images[3].path)


def with_unreadable(folder: Path, lab: Lab) -> None:
    lab.extract(folder / "s.zarr", lab.images[:4], unreadable=["permission denied"])
    sign(folder / "s.zarr", SIGNING_KEY)


def with_two_stores(folder: Path, lab: Lab) -> None:
    lab.extract(folder / "a.zarr", lab.images[:3])
    lab.extract(folder / "b.zarr", lab.images[2:])


def with_packed_store(folder: Path, lab: Lab) -> None:
    lab.extract(folder / "s.zarr", lab.images[:4])
    pack(folder / "s.zarr", folder / "s.zip", allow="private", progress=Silent())
    shutil.rmtree(folder / "s.zarr")


def lose_small_files(store: Path) -> None:
    for key in ("zarr.json", "E_v/zarr.json", "failures.parquet", "README.md", "ledger/000001.json"):
        (store / key).unlink()


def lose_data(store: Path) -> None:
    (store / "E_v/c/1/0/0").unlink()
    (store / "E_a/zarr.json").write_text("{}")


def repair_with_images(folder: Path, lab: Lab) -> None:
    given = TeacherAtHand(
        load_teacher=lab.recipe.load, load_sources=lambda: lab.images, hash_key=None, progress=lab.notes
    )
    repair(folder / "s.zarr", given, lab.notes)


def extract_everything(folder: Path, lab: Lab) -> None:
    lab.extract(folder / "s.zarr", lab.images, unreadable=["permission denied"])


OPERATIONS: dict[str, tuple[Run, Run]] = {
    "extract": (lambda folder, lab: None, extract_everything),
    "finish": (with_tasks, lambda folder, lab: finish(folder / "s.zarr")),
    "extend": (with_store(), lambda folder, lab: lab.extend(folder / "s.zarr", lab.images[:6])),
    "extend with failures": (
        with_store(),
        lambda folder, lab: lab.extend(folder / "s.zarr", lab.images[5:], unreadable=["no permission"]),
    ),
    "extend --retry-failed": (
        with_failure,
        lambda folder, lab: lab.extend(folder / "s.zarr", lab.images[:4], retry_failed=True),
    ),
    "extend --retry-failed by nothing": (
        with_unreadable,
        lambda folder, lab: lab.extend(
            folder / "s.zarr", lab.images[:4], unreadable=["no such file"], retry_failed=True
        ),
    ),
    "repair small files": (
        with_store(lose_small_files),
        lambda folder, lab: repair(folder / "s.zarr", None, lab.notes),
    ),
    "repair a shard": (with_store(lose_data), repair_with_images),
    "merge": (
        with_two_stores,
        lambda folder, lab: merge(
            [str(folder / "a.zarr"), str(folder / "b.zarr")], folder / "out.zarr", progress=lab.notes
        ),
    ),
    "subset": (
        with_store(),
        lambda folder, lab: subset(
            str(folder / "s.zarr"),
            folder / "out.zarr",
            [Wanted(image_hash=image.image_hash) for image in lab.images[:3]],
            progress=lab.notes,
        ),
    ),
    "push": (
        with_store(),
        lambda folder, lab: push(folder / "s.zarr", str(folder / "there"), allow="private", progress=lab.notes),
    ),
    "pull": (with_store(), lambda folder, lab: pull(str(folder / "s.zarr"), folder / "out.zarr", progress=lab.notes)),
    "pack": (
        with_store(),
        lambda folder, lab: pack(folder / "s.zarr", folder / "s.zip", allow="private", progress=lab.notes),
    ),
    "unpack": (
        with_packed_store,
        lambda folder, lab: unpack(folder / "s.zip", folder / "s.zarr", progress=lab.notes),
    ),
    "convert": (
        lambda folder, lab: version_1_store(folder / "s.zarr"),
        lambda folder, lab: convert(folder / "s.zarr", progress=lab.notes),
    ),
    "sign": (with_store(), lambda folder, lab: sign(folder / "s.zarr", SIGNING_KEY, progress=lab.notes)),
    "sign again": (
        with_store(lambda store: sign(store, OTHER_KEY)),
        lambda folder, lab: sign(folder / "s.zarr", SIGNING_KEY, progress=lab.notes),
    ),
}
"""What is there before, and what is killed; everything in one folder."""


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Run in a child; its exit code, what it said, and the changes that it made."""
    prepare, run = OPERATIONS[order["operation"]]
    folder, log = Path(order["folder"]), os.memfd_create("log")
    told = os.memfd_create("told")
    child = os.fork()
    if child == 0:
        lab = Lab(order["weights"], order["images"])
        code = 0
        try:
            if order["prepare"]:
                prepare(folder, lab)
            else:
                ctypes.CDLL(None).medalign_arm(
                    str(folder).encode(), ctypes.c_long(order["at"]), int(order["torn"]), log
                )
                run(folder, lab)
        except BaseException as error:
            code, text = 1, f"{type(error).__name__}: {error}"
            lab.notes.said.append(text)
        os.write(told, json.dumps(lab.notes.said).encode())
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "said": json.loads(_text(told) or "[]"),
        "changes": [line.split("\t") for line in _text(log).splitlines()],
    }


def _text(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read().decode()


def main() -> None:
    gc.collect()
    gc.freeze()  # children collect only their own garbage
    print(json.dumps(list(OPERATIONS)), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

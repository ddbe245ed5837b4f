"""Single harms to a store's files: a flipped bit, a truncation, a deletion, two files swapped. Seeded."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from medalign.teacher_cache.store.format.header import ABSENT
from medalign.teacher_cache.store.format.shard_file import index_bytes
from medalign.teacher_cache.store.records.zarr_metadata import read_header

HARMS = ("flip", "truncate", "delete", "swap")


@dataclass(frozen=True)
class Harm:
    """What is done to one file, or to two where they are swapped."""

    what: str
    key: str
    place: int
    """Bit that is flipped, or length that is left."""
    other: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.key} {self.place or self.other}"

    @property
    def keys(self) -> list[str]:
        return [self.key, self.other] if self.other else [self.key]

    def apply(self, store: Path) -> None:
        file, data = store / self.key, bytearray((store / self.key).read_bytes())
        if self.what == "flip":
            data[self.place // 8] ^= 1 << self.place % 8
            file.write_bytes(data)
        elif self.what == "truncate":
            file.write_bytes(data[: self.place])
        elif self.what == "delete":
            file.unlink()
        else:
            file.write_bytes((store / self.other).read_bytes())
            (store / self.other).write_bytes(data)


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {
        file.relative_to(store).as_posix(): file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file()
    }


def kind_of(key: str) -> str:
    """Files that play the same part."""
    if "/c/" in key:
        return f"shards of {key.split('/c/')[0]}"
    if key.endswith("/zarr.json"):
        return "metadata below the root"
    return "ledger records" if key.startswith("ledger/0") else key


def draw_harms(store: Path, number: int, seed: int) -> list[Harm]:
    """Every kind of harm to every kind of file, then more at random, `number` in all."""
    files = contents(store)
    kinds: dict[str, list[str]] = {}
    for key in files:
        kinds.setdefault(kind_of(key), []).append(key)
    draw = random.Random(seed)
    pairs: Iterator[tuple[str, str]] = iter([(kind, what) for kind in kinds for what in HARMS])
    more = ((draw.choice(list(kinds)), draw.choice(HARMS)) for _ in count())
    found: dict[Harm, None] = {}
    while len(found) < number:
        kind, what = next(pairs, None) or next(more)
        found[_draw_harm(files, kinds[kind], what, draw)] = None
    assert len(kinds) * len(HARMS) <= number
    return list(found)


def _draw_harm(files: dict[str, bytes], keys: list[str], what: str, draw: random.Random) -> Harm:
    key = draw.choice(keys)
    size = len(files[key])
    if what == "flip":
        return Harm(what, key, draw.randrange(8 * size))
    if what == "truncate":
        return Harm(what, key, draw.randrange(size))
    if what == "delete":
        return Harm(what, key, 0)
    others = [other for other in keys if files[other] != files[key]]
    return Harm(what, key, 0, draw.choice(others or [other for other in files if files[other] != files[key]]))


def harmed_rows(store: Path, harm: Harm) -> set[int]:
    """Rows of an unharmed store whose bytes the harm hits; those that failed included."""
    header, rows = read_header(store), set()
    for key in harm.keys:
        if "/c/" not in key:
            continue
        shard = int(key.split("/c/")[1].split("/")[0])
        whole = header.shard_range(shard)
        rows |= (
            {whole[0] + _hit_chunk(store / key, header.shard_rows, harm)}
            if _hits_a_chunk(store, key, harm)
            else set(whole)
        )
    return rows


def _hits_a_chunk(store: Path, key: str, harm: Harm) -> bool:
    end = (store / key).stat().st_size - index_bytes(read_header(store).shard_rows)
    return harm.what == "flip" and harm.place // 8 < end


def _hit_chunk(file: Path, chunks: int, harm: Harm) -> int:
    index = np.frombuffer(file.read_bytes()[-index_bytes(chunks) : -4], "<u8").reshape(chunks, 2)
    place = harm.place // 8
    (hit,) = [n for n, (start, size) in enumerate(index.tolist()) if start != ABSENT and start <= place < start + size]
    return hit

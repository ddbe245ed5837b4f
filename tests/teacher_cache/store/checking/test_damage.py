"""Every kind of damage to every kind of file: `verify` detects it, no read returns a wrong row, `repair` undoes it."""

import random
import shutil
from collections.abc import Sequence
from itertools import chain, combinations
from pathlib import Path

import medalign
import pytest
import torch
from harms import Harm, contents, draw_harms, harmed_rows, kind_of
from medalign.errors import StoreError
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.store import DamagedStore, MissingTeacherRow, TeacherStore, open_store
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.format.header import StoreHeader
from medalign.teacher_cache.store.format.profiles import EncodedRows, Profile, encode
from medalign.teacher_cache.store.records.ledger import ShardRecord
from medalign.teacher_cache.store.store_problem import Problem
from medalign.teacher_cache.store.writing.writer import StoreWriter
from medalign.teacher_cache.workers.messages import ShardJob
from medalign.teacher_cache.workers.prefetch import ImageSource
from stores import name_of, pixels_of, teacher_output, write_store

IMAGES, FAILING = range(14), (5,)
SHARDS = 4
HARMS_EACH = 80
HERE = f"medalign {medalign.__version__}"
"""The value of the real writer, so that the card is compared too."""
SHARD = "E_v/c/1/0/0"


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """float16, with a failed image, a file that could not be read, and a shard that fell back to float32."""
    out = tmp_path_factory.mktemp("plain") / "s.zarr"
    reasons = ["a pipe, not a regular file"]
    return write_store(out, IMAGES, failing=FAILING, wide={2: "float32"}, unreadable=reasons, created_by=HERE)


@pytest.fixture(scope="module")
def gram(tmp_path_factory) -> Path:
    """12-bit cosines, compressed; shards that fell back to 16 bits and to float16 features."""
    out = tmp_path_factory.mktemp("gram") / "s.zarr"
    return write_store(out, IMAGES, wide={1: "gram16", 3: "native"}, profile="gram12", tolerance=1e-3, created_by=HERE)


@pytest.fixture
def copy(plain, memory_path) -> Path:
    return Path(shutil.copytree(plain, memory_path / "copy.zarr"))


def values(store: TeacherStore, image: int) -> list[torch.Tensor]:
    target = store[name_of(image)]
    return [value for value in (target.E_v, target.S, target.E_a) if value is not None]


class MadeUpTeacher:
    """A fake teacher and engine that compute the same rows again."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, Profile], EncodedRows] = {}

    def sources(self) -> list[ImageSource]:
        return [ImageSource(Path("unused"), name_of(image)) for image in IMAGES]

    def name(self, image_hash: str) -> str:
        return image_hash

    def check(self, files: object, header: StoreHeader, records: Sequence[ShardRecord]) -> None:
        pass

    def compute(self, writer: StoreWriter, jobs: Sequence[ShardJob]) -> None:
        header = writer.header
        for job in jobs:
            shard = writer.begin(job.shard, job.profile)
            for source in job.images:
                image = next(image for image in IMAGES if name_of(image) == source.image_hash)
                if image in FAILING and header.profile == "float16":
                    shard.fail(source.image_hash, "no image")
                    continue
                rows = self._rows(image, job.profile, header)
                shard.append(
                    {name: array[0] for name, array in rows.arrays.items()},
                    image_hash=source.image_hash,
                    pixel_hash=pixels_of(image),
                    size=(30 + image, 20),
                    max_abs_dS=float(rows.max_abs_dS[0]),
                )
            shard.commit()

    def _rows(self, image: int, profile: Profile, header: StoreHeader) -> EncodedRows:
        if (image, profile) not in self._known:
            output = teacher_output([image], header)
            self._known[image, profile] = encode(profile, *output, header.native_grid, header.grid)
        return self._known[image, profile]


@pytest.fixture(autouse=True)
def _made_up_images(monkeypatch):
    monkeypatch.setattr("medalign.teacher_cache.extraction.store_repair._unusable", lambda source: None)


@pytest.mark.parametrize("which", ["plain", "gram"])
def test_every_damage_is_detected_stops_reads_and_is_repaired(which, request, memory_path):
    """80 for each of two stores."""
    whole: Path = request.getfixturevalue(which)
    original, root = contents(whole), open_store(whole).root_sha256
    failing = FAILING if which == "plain" else ()
    truth = {image: values(open_store(whole), image) for image in IMAGES if image not in failing}
    row_of = {image: open_store(whole).row(name_of(image)) for image in truth}
    store = Path(shutil.copytree(whole, memory_path / "harmed.zarr"))
    harms, teacher = draw_harms(whole, HARMS_EACH, seed=20), MadeUpTeacher()
    for harm in harms:
        harm.apply(store)
        rows = harmed_rows(whole, harm)
        check_reads(store, truth, {image for image, row in row_of.items() if row in rows}, harm)
        report = repair(store, teacher)
        check_found(report.found, harm)
        assert not report.left, f"{harm}: {report.left}"
        assert report.root_after == root, harm
        assert contents(store) == original, harm
    assert {kind_of(harm.key) for harm in harms} == {kind_of(key) for key in original}


def test_any_two_swapped_small_files_are_swapped_back(plain, copy):
    """Including files that are the only sources of each other; neither teacher nor images are needed."""
    original = contents(plain)
    small = [key for key in original if "/c/" not in key and key != "manifest-sha256.txt"]
    pairs = [pair for pair in combinations(small, 2) if original[pair[0]] != original[pair[1]]]
    assert {"ledger/unreadable.json", "failures.parquet", "zarr.json", "index.parquet"} <= {*chain(*pairs)}
    only = [("failures.parquet", "ledger/unreadable.json"), ("index.parquet", "zarr.json")]
    for one, other in [*only, *random.Random(3).sample(pairs, 12)]:
        harm = Harm("swap", one, 0, other)
        harm.apply(copy)
        report = repair(copy)
        check_found(report.found, harm)
        assert (report.left, report.root_after) == ((), open_store(plain).root_sha256), harm
        assert contents(copy) == original, harm


def test_swapped_headers_are_reported_as_such(copy):
    Harm("swap", "zarr.json", 0, "index.parquet").apply(copy)
    with pytest.raises(StoreError, match=r"have each other's names.*`medalign store repair \S+` swaps them back"):
        verify(copy)


def check_found(problems: Sequence[Problem], harm: Harm) -> None:
    """`repair` begins with what `verify` does; both report the same problems."""
    named = {problem.key for problem in problems}
    assert named, harm
    if "manifest-sha256.txt" not in harm.keys:  # where its line is harmed, the file that it lists is named
        assert named >= set(harm.keys), (harm, problems)


def check_reads(store: Path, truth: dict[int, list[torch.Tensor]], hit: set[int], harm: Harm) -> None:
    """A read gives the true row or raises, and then says what to do; one of a harmed row raises."""
    try:
        opened = open_store(store)
    except StoreError as error:
        advised(error, "medalign store", "medalign teacher extract", "pip install --upgrade")
        return
    for image in hit:
        with pytest.raises((DamagedStore, MissingTeacherRow)) as caught:
            values(opened, image)
        advised(caught.value, "medalign store repair", "medalign store extend")
    if all_true(opened, {image: truth[image] for image in truth.keys() - hit}):
        return
    for image in truth.keys() - hit:  # the index is harmed: some rows cannot be found or read any more
        try:
            assert all_true(opened, {image: truth[image]}), harm
        except (DamagedStore, MissingTeacherRow) as error:
            advised(error, "medalign store repair", "medalign store extend")


def all_true(store: TeacherStore, truth: dict[int, list[torch.Tensor]]) -> bool:
    """Whether rows, read together, are the true ones; an error is passed on where there is only one."""
    if not truth:
        return True
    try:
        found = store.read([name_of(image) for image in truth])
    except (DamagedStore, MissingTeacherRow):
        if len(truth) == 1:
            raise
        return False
    given = [value for value in (found.E_v, found.S, found.E_a) if value is not None]
    columns = [torch.stack(column) for column in zip(*truth.values(), strict=True)]
    return all(map(torch.equal, given, columns))


def advised(error: BaseException, *commands: str) -> None:
    assert any(command in str(error) for command in commands), error

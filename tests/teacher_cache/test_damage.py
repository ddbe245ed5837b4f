"""Every kind of harm to every kind of file: `verify` finds it, no read returns a wrong row, `repair` undoes it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import medalign
import pytest
import torch
from harms import Harm, contents, draw_harms, harmed_rows, kind_of
from medalign.errors import StoreError
from medalign.teacher_cache.jobs import ShardJob
from medalign.teacher_cache.prefetch import ImageSource
from medalign.teacher_cache.repair import repair
from medalign.teacher_cache.store import DamagedStore, MissingTeacherRow, TeacherStore, open_store
from medalign.teacher_cache.store.format import StoreHeader
from medalign.teacher_cache.store.ledger import ShardRecord
from medalign.teacher_cache.store.profiles import encode
from medalign.teacher_cache.store.verify import verify
from medalign.teacher_cache.store.writer import StoreWriter
from stores import name_of, pixels_of, teacher_output, write_store

IMAGES, FAILING = range(14), (5,)
SHARDS = 4
HARMS_EACH = 150
HERE = f"medalign {medalign.__version__}"
"""As the real writer says it, so the card is compared too."""
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
def copy(plain, tmp_path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "copy.zarr"))


def values(store: TeacherStore, image: int) -> list[torch.Tensor]:
    target = store[name_of(image)]
    return [value for value in (target.E_v, target.S, target.E_a) if value is not None]


class MadeUpTeacher:
    """Stands in for teacher and engine: it says of every image what it said before."""

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
                rows = encode(job.profile, *teacher_output([image], header), header.native_grid, header.grid)
                shard.append(
                    {name: array[0] for name, array in rows.arrays.items()},
                    image_hash=source.image_hash,
                    pixel_hash=pixels_of(image),
                    size=(30 + image, 20),
                    max_abs_dS=float(rows.max_abs_dS[0]),
                )
            shard.commit()


@pytest.fixture(autouse=True)
def _made_up_images_and_no_power_cuts(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # two thirds of the time of writing so small a store
    monkeypatch.setattr("medalign.teacher_cache.repair._unusable", lambda source: None)


@pytest.mark.parametrize("which", ["plain", "gram"])
def test_every_harm_is_found_stops_reads_and_is_repaired(which, request, tmp_path):
    """150 for each of two stores."""
    whole: Path = request.getfixturevalue(which)
    original, root = contents(whole), open_store(whole).root_sha256
    failing = FAILING if which == "plain" else ()
    truth = {image: values(open_store(whole), image) for image in IMAGES if image not in failing}
    row_of = {image: open_store(whole).row(name_of(image)) for image in truth}
    store = Path(shutil.copytree(whole, tmp_path / "harmed.zarr"))
    harms = draw_harms(whole, HARMS_EACH, seed=20)
    for harm in harms:
        harm.apply(store)
        check_found(store, harm)
        rows = harmed_rows(whole, harm)
        check_reads(store, truth, {image for image, row in row_of.items() if row in rows}, harm)
        report = repair(store, MadeUpTeacher())
        assert not report.left, f"{harm}: {report.left}"
        assert report.root_after == root, harm
        assert contents(store) == original, harm
    assert {kind_of(harm.key) for harm in harms} == {kind_of(key) for key in original}


def check_found(store: Path, harm: Harm) -> None:
    report = verify(store)
    named = {problem.key for problem in report.problems}
    assert not report.ok, harm
    assert named, harm
    if "manifest-sha256.txt" not in harm.keys:  # where its line is harmed, the file that it lists is named
        assert named >= set(harm.keys), (harm, report.problems)


def check_reads(store: Path, truth: dict[int, list[torch.Tensor]], hit: set[int], harm: Harm) -> None:
    """A read gives the true row or raises, and then says what to do; one of a harmed row raises."""
    try:
        opened = open_store(store)
    except StoreError as error:
        advised(error, "medalign teacher", "pip install --upgrade")
        return
    for image in hit:
        with pytest.raises((DamagedStore, MissingTeacherRow)) as caught:
            values(opened, image)
        advised(caught.value, "medalign teacher repair", "medalign teacher extend")
    for image in truth.keys() - hit:
        try:
            found = values(opened, image)
        except (DamagedStore, MissingTeacherRow) as error:
            advised(error, "medalign teacher repair", "medalign teacher extend")
        else:
            assert len(found) == len(truth[image]), harm
            assert all(map(torch.equal, found, truth[image])), harm


def advised(error: BaseException, *commands: str) -> None:
    assert any(command in str(error) for command in commands), error

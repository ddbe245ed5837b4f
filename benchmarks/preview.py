"""How often `medalign teacher preview` calls a store sound or broken, over seeds and over ways to break a store.

For each seed, phantoms and their store with the demo's teacher; then copies of the store with the rows permuted, of
other phantoms, all zeroed, a tenth of them permuted, two of them exchanged, or three of other phantoms. The copies have
correct digests and checksums, so only a look at their content can tell.

    python benchmarks/preview.py --seeds 20 --images 120
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.demo.demo import ASSETS, GRID
from medalign.pipeline.extraction.extract import CrewRequest, ExtractionRequest, run_extraction
from medalign.pipeline.extraction.image_sources import ImageRequest
from medalign.pipeline.stores.preview.preview import preview_store
from medalign.pipeline.stores.preview.preview_result import PreviewRequest, StorePreview
from medalign.progress import Silent
from medalign.teacher_cache.store import TeacherStore, open_store
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.format.header import plan_digest
from medalign.teacher_cache.store.reading.rows import row_values
from medalign.teacher_cache.store.writing.writer import StoreWriter

Values = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--images", type=int, default=120, help="phantoms of a store")
    parser.add_argument("--profile", default="float16")
    parser.add_argument("--rows", type=int, default=200, help="rows that preview reads")
    asked = parser.parse_args()
    looks: dict[str, Counter[str]] = {name: Counter() for name in ("without images", *WAYS)}
    details: dict[str, list[tuple[float, ...]]] = {name: [] for name in looks}
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as place:
            for name, preview, is_found in previews(Path(place), seed, asked):
                looks[name][f"{preview.verdict.look}, {preview.fit_verdict.state}{is_found}"] += 1
                if preview.fit is not None:
                    details[name].append((preview.fit.preferred, preview.fit.own, preview.visible))
        print(f"seed {seed}: {time.process_time():.0f} s of processor time", flush=True)
    for name, counts in looks.items():
        values = np.array(details[name] or [(np.nan,) * 3])
        preferred, agreement, visible = (f"{column.min():.3f} to {column.max():.3f}" for column in values.T)
        print(f"{name}: {'; '.join(f'{look} {number}' for look, number in counts.most_common())}")
        print(f"    own image preferred {preferred}, agreement {agreement}, visible exchanges {visible}")


def previews(place: Path, seed: int, asked: argparse.Namespace) -> list[tuple[str, StorePreview, str]]:
    """The previews of one seed, each with what it says of the rows that were changed."""
    own = extracted(place, "own", asked, 2 * seed)
    other = extracted(place, "other", asked, 2 * seed + 1)
    images, found = ImageRequest(manifest=place / "own" / "manifest.parquet"), []
    request = PreviewRequest(location=str(own), rows=asked.rows, seed=seed)
    found.append(("without images", preview_store(request, Silent()), ""))
    for name, change in WAYS.items():
        path, generator = place / f"{name}.zarr", np.random.default_rng([seed, 3])
        changed = change(path, open_store(own), open_store(other), generator)
        request = PreviewRequest(location=str(path), images=images, rows=asked.rows, seed=seed)
        preview = preview_store(request, Silent())
        listed = {preview.rows.compared[wrong.index].row for wrong in preview.wrong}
        told = f", {len(listed & changed)} of {len(changed)} changed rows listed" if changed else ""
        wrong = f", {len(listed - changed)} other rows listed" if listed - changed else ""
        found.append((name, preview, told + wrong))
    return found


def extracted(place: Path, name: str, asked: argparse.Namespace, seed: int) -> Path:
    """A store of new phantoms."""
    make_phantoms(place / name, asked.images, seed, Silent())
    request = ExtractionRequest(
        teacher="phantom-tiny",
        weights=str(ASSETS / "phantom-teacher.safetensors"),
        out=place / f"{name}.zarr",
        images=ImageRequest(manifest=place / name / "manifest.parquet"),
        crew=CrewRequest(device="cpu"),
        grid=GRID,
        profile=asked.profile,
        threads=1,
    )
    run_extraction(request, Silent())
    return request.out


def write_copy(path: Path, store: TeacherStore, rows: Sequence[Values]) -> None:
    """A store with the header and index of `store`, and other rows."""
    names = list(store)
    index = store.index_columns(["pixel_hash", "width", "height"]).to_pylist()
    header = store.header.model_copy(update={"plan_sha256": plan_digest(names)})
    writer = StoreWriter.create(path, header, names, ())
    queue = iter(zip(names, index, rows, strict=True))
    with RunLock(path):
        for number in writer.pending():
            shard = writer.begin(number, None)
            for _ in header.shard_range(number):
                name, entry, values = next(queue)
                shard.append(
                    values,
                    image_hash=name,
                    pixel_hash=entry["pixel_hash"],
                    size=(entry["width"], entry["height"]),
                    max_abs_dS=0.0,
                )
            shard.commit()
        writer.finish()


def stored_values(store: TeacherStore) -> list[Values]:
    """The arrays of every row as they are stored."""
    rows = store.stored_rows(range(len(store)))
    return [{name: values[0].copy() for name, values in row_values(row).items()} for row in rows]


def reordered(path: Path, store: TeacherStore, order: Sequence[int] | np.ndarray) -> set[int]:
    rows = stored_values(store)
    write_copy(path, store, [rows[place] for place in order])
    return {number for number, place in enumerate(order) if number != place}


def sound(path: Path, own: TeacherStore, other: TeacherStore, generator: np.random.Generator) -> set[int]:
    return reordered(path, own, range(len(own)))


def permuted(path: Path, own: TeacherStore, other: TeacherStore, generator: np.random.Generator) -> set[int]:
    reordered(path, own, generator.permutation(len(own)))
    return set()


def of_other_images(path: Path, own: TeacherStore, other: TeacherStore, generator: np.random.Generator) -> set[int]:
    write_copy(path, own, stored_values(other))
    return set()


def zeroed(path: Path, own: TeacherStore, other: TeacherStore, generator: np.random.Generator) -> set[int]:
    write_copy(path, own, [{name: 0 * values for name, values in row.items()} for row in stored_values(own)])
    return set()


def two_exchanged(path: Path, own: TeacherStore, other: TeacherStore, generator: np.random.Generator) -> set[int]:
    order = np.arange(len(own))
    pair = generator.choice(len(own), 2, replace=False)
    order[pair] = order[pair[::-1]]
    return reordered(path, own, order)


def tenth_permuted(path: Path, own: TeacherStore, other: TeacherStore, generator: np.random.Generator) -> set[int]:
    order = np.arange(len(own))
    some = generator.choice(len(own), len(own) // 10, replace=False)
    order[some] = np.roll(some, 1)
    return reordered(path, own, order)


def three_of_other_images(
    path: Path, own: TeacherStore, other: TeacherStore, generator: np.random.Generator
) -> set[int]:
    rows, others = stored_values(own), stored_values(other)
    some = generator.choice(len(own), 3, replace=False)
    for place in some:
        rows[place] = others[place]
    write_copy(path, own, rows)
    return set(map(int, some))


Way = Callable[[Path, TeacherStore, TeacherStore, np.random.Generator], set[int]]
WAYS: dict[str, Way] = {
    "sound": sound,
    "permuted": permuted,
    "of other images": of_other_images,
    "zeroed": zeroed,
    "two exchanged": two_exchanged,
    "a tenth permuted": tenth_permuted,
    "three of other images": three_of_other_images,
}


if __name__ == "__main__":
    main()

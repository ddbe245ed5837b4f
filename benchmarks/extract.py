"""Stage one against the bare teacher, and against the loop of the paper's notebooks.

    python benchmarks/extract.py [--images DIR] [--count 64] [--teacher unimed-b16-224] [--rounds 5]

Weights are random (speed does not depend on them). In every round the same images go through the bare teacher on
pixels that are already there and through `extract`, from reading the first file to a finished store, and every eighth
of them through the notebooks' loop; the order is turned round from round to round. What to quote is the median of the
rounds' ratios; on a busy machine that of processor time, of all threads.
"""

import argparse
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from medalign.teacher_cache.extraction.stage_one import ExtractionOptions, ExtractionReport, extract
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.geometry.pixels import interpolate_patches
from medalign.teacher_cache.images import image_hash
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.forward import Teacher
from medalign.teacher_cache.teachers.towers import build_tower
from medalign.teacher_cache.workers.device_copies import PlainCopies
from medalign.teacher_cache.workers.prefetch import FailedImage, ImageSource, prepare_image
from PIL import Image

GRID = PatchGrid(24, 24)
NOTEBOOK_SHARE = 8
"""The notebooks' loop is slow and takes images one at a time: of so many images it gets one."""


def draw_images(folder: Path, count: int) -> list[Path]:
    """Smooth random 512 x 384 JPEG files, about as slow to decode as radiographs of that size."""
    generator = np.random.default_rng(0)
    paths = []
    for index in range(count):
        coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        path = folder / f"{index}.jpg"
        Image.fromarray(coarse).resize((512, 384), Image.Resampling.BICUBIC).save(path, quality=92)
        paths.append(path)
    return paths


def random_teacher(name: str, device: str) -> Teacher:
    torch.manual_seed(0)
    spec = teacher_spec(name)
    tower = build_tower(spec).eval().requires_grad_(False).to(device)
    return Teacher(spec=spec, tower=tower, device=torch.device(device), dtype="float32", weights_sha256="0" * 64)


def bare_forward(teacher: Teacher, batches: list[torch.Tensor]) -> None:
    """The forward passes alone, on pixels that are already there."""
    for pixels in batches:
        teacher.forward(pixels).attention.sum().item()  # .item() waits for a GPU


def notebook_loop(teacher: Teacher, sources: list[ImageSource], out: Path) -> None:
    """The paper's way: one image at a time, one pass for features, one for attention, one pickle at the end.

    Written anew after the description: per image the matrix of all patch cosines in float32 and the attention, in a
    dictionary by file path, which is written when everything is done. A kill loses all of it.
    """
    features, attention = {}, {}
    for source in sources:
        pixels = pixels_of(teacher, source)
        patches = interpolate_patches(teacher.forward(pixels).patches, teacher.spec.grid, GRID)
        features[str(source.path)] = cosine_matrix(patches)[0].cpu()
    for source in sources:
        seen = teacher.forward(pixels_of(teacher, source)).attention[..., None]
        attention[str(source.path)] = interpolate_patches(seen, teacher.spec.grid, GRID)[0, :, 0].cpu()
    with out.open("wb") as file:
        pickle.dump({"features": features, "attention": attention}, file)


def pixels_of(teacher: Teacher, source: ImageSource) -> torch.Tensor:
    prepared = prepare_image(source, teacher.spec, "pad")
    assert not isinstance(prepared, FailedImage), prepared
    return PlainCopies().pixels(teacher, [prepared])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images instead of drawn ones")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--teacher", default="unimed-b16-224")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = sorted(asked.images.iterdir())[: asked.count] if asked.images else draw_images(folder, asked.count)
        sources = [ImageSource(path=path, image_hash=image_hash(path.read_bytes())) for path in paths]
        teacher = random_teacher(asked.teacher, asked.device)
        batches = list(torch.cat([pixels_of(teacher, source) for source in sources]).split(asked.batch_size))
        bare_forward(teacher, batches[:1])
        rounds = [compare(teacher, sources, batches, asked, folder, number) for number in range(asked.rounds)]
    walls, processors = zip(*rounds, strict=True)
    print(f"{asked.teacher}, {len(sources)} images to {GRID}, {asked.threads} threads, {asked.device}; medians:")
    for unit, ratios in (("images/s", walls), ("processor time", processors)):
        ours, notebook = (statistics.median(values) for values in zip(*ratios, strict=True))
        print(f"  by {unit}: extract at {ours:.3f} of the bare teacher, the notebooks' loop at {notebook:.3f}")


def compare(
    teacher: Teacher,
    sources: list[ImageSource],
    batches: list[torch.Tensor],
    asked: argparse.Namespace,
    folder: Path,
    number: int,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """One round; bare over `extract` and bare over the notebooks' loop, in wall and in processor time."""
    reports: list[ExtractionReport] = []
    few = sources[::NOTEBOOK_SHARE]

    def ours() -> None:
        out = folder / f"store-{number}.zarr"
        options = ExtractionOptions(grid=GRID, batch_size=asked.batch_size, threads=asked.threads, data_use="public")
        reports.append(extract(teacher, sources, out, options))

    steps = {
        "bare": lambda: bare_forward(teacher, batches),
        "ours": ours,
        "notebook": lambda: notebook_loop(teacher, few, folder / f"{number}.pickle"),
    }
    images = {"bare": len(sources), "ours": len(sources), "notebook": len(few)}
    found = {name: timed(steps[name]) for name in (list(steps) if number % 2 == 0 else reversed(list(steps)))}
    wall, processor = ({name: times[unit] / images[name] for name, times in found.items()} for unit in (0, 1))
    speeds = ", ".join(f"{name} {1 / seconds:.2f}" for name, seconds in wall.items())
    (report,) = reports
    print(
        f"round {number + 1}: images/s {speeds}; extract: waiting for images {report.decode_share:.3f}, in the teacher "
        f"{report.forward_share:.3f}, for encoding and disk {report.write_share:.3f}",
        flush=True,
    )
    return (
        (wall["bare"] / wall["ours"], wall["bare"] / wall["notebook"]),
        (processor["bare"] / processor["ours"], processor["bare"] / processor["notebook"]),
    )


def timed(step: Callable[[], None]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    main()

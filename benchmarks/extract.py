"""Stage one against the bare teacher: what reading, registering, rounding and writing cost on top of the forward.

    python benchmarks/extract.py [--images DIR] [--count 64] [--teacher unimed-b16-224] [--rounds 3]

Weights are random (speed does not depend on them). Bare forwards and extractions of the same images take turns in one
process; the ratio of each pair is printed, and the median of the ratios is what to quote.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from medalign.teacher_cache.extract import ExtractionReport, extract
from medalign.teacher_cache.geometry import PatchGrid
from medalign.teacher_cache.images import image_hash
from medalign.teacher_cache.prefetch import FailedImage, ImageSource, prepare_image
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.forward import Teacher
from medalign.teacher_cache.teachers.towers import build_tower
from PIL import Image


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


def bare_forward(teacher: Teacher, batches: list[torch.Tensor]) -> float:
    """Seconds of the forward passes alone, on pixels that are already there."""
    started = time.perf_counter()
    for pixels in batches:
        teacher.forward(pixels)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images instead of drawn ones")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--teacher", default="unimed-b16-224")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = sorted(asked.images.iterdir())[: asked.count] if asked.images else draw_images(folder, asked.count)
        sources = [ImageSource(path=path, image_hash=image_hash(path.read_bytes())) for path in paths]
        teacher = random_teacher(asked.teacher, asked.device)
        prepared = [prepare_image(source, teacher.spec, "pad") for source in sources]
        pixels = torch.stack([image.pixels for image in prepared if not isinstance(image, FailedImage)])
        batches = list(pixels.split(asked.batch_size))
        bare_forward(teacher, batches[:1])
        ratios = []
        for number in range(asked.rounds):
            alone = bare_forward(teacher, batches)
            out = folder / f"store-{number}.zarr"
            report: ExtractionReport = extract(
                teacher, sources, out, grid=PatchGrid(24, 24), batch_size=asked.batch_size, data_use="public"
            )
            ratios.append(alone / report.seconds)
            print(
                f"round {number + 1}: bare {len(pixels) / alone:6.2f} images/s, extract "
                f"{report.images_per_second:6.2f} images/s, ratio {ratios[-1]:.3f} (waiting for images "
                f"{report.decode_share:.3f}, in the teacher {report.forward_share:.3f}, for the disk "
                f"{report.write_share:.3f})"
            )
        print(
            f"{asked.teacher}, {len(pixels)} images to 24x24, {torch.get_num_threads()} threads: median ratio "
            f"{statistics.median(ratios):.3f}"
        )


if __name__ == "__main__":
    main()

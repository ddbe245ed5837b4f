"""Training reads a store behind a URL as it reads one on the disk: the same steps, the same losses."""

import json
from pathlib import Path

import pytest
from labs import hashes_of
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.images import image_hash
from servers import FileServer, s3_bucket
from stores import pixels_of, write_store
from students import LAYER, write_images

IMAGES = range(6)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """Images, questions about them, and `store.zarr` with their targets."""
    folder = tmp_path_factory.mktemp("lab")
    paths = write_images(folder / "images", [(24, 24)] * len(IMAGES))
    rows = [
        ManifestRow(
            image=path.name,
            image_hash=image_hash(path.read_bytes()),
            pixel_hash=pixels_of(image),
            width=24,
            height=24,
            question_id=str(image),
            question="What is it?",
            answer="noise",
            split="train",
            data_use="public",
        )
        for image, path in zip(IMAGES, paths, strict=True)
    ]
    Manifest.from_rows(rows, folder / "images", "noise").write(folder / "manifest.parquet")
    write_store(folder / "store.zarr", IMAGES, hashes=hashes_of(paths), grid=PatchGrid(3, 3), shard_rows=2)
    return folder


def losses(lab: Path, student: Path, store: str, out: Path, workers: int) -> list[dict[str, object]]:
    """The log of a run of three steps of two samples."""
    settings = {
        "student": {"path": student},
        "data": {"manifest": lab / "manifest.parquet", "store": store},
        "alignment": {"layer": LAYER, "alpha": 1.0, "beta": 1.0},
        "lora": {"r": 2},
        "training": {
            "max_steps": 3,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "logging_steps": 1,
            "dataloader_num_workers": workers,
            "device": "cpu",
        },
    }
    report = run_training(Settings.model_validate(settings), out, Silent())
    assert report.summary()["plan"]["store"] == store
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "loss" in name} for line in log]


def test_training_from_urls_is_training_from_the_disk(lab, student_folder, tmp_path):
    near = losses(lab, student_folder, str(lab / "store.zarr"), tmp_path / "near", 0)
    assert any("loss_vis" in line for line in near)
    with FileServer(lab) as server:
        assert losses(lab, student_folder, f"{server.url}/store.zarr", tmp_path / "http", 2) == near
        assert server.sent > 0
    with s3_bucket("lab") as client:
        for file in filter(Path.is_file, (lab / "store.zarr").rglob("*")):
            client.upload_file(str(file), "lab", file.relative_to(lab).as_posix())
        assert losses(lab, student_folder, "s3://lab/store.zarr", tmp_path / "s3", 0) == near

"""Training and measuring with stores of every profile: the same losses, within each profile's error."""

import json
from dataclasses import replace

import pytest
import torch
from medalign.progress import Silent
from medalign.student.inputs.alignment_dataset import AlignmentDataset
from medalign.student.inputs.collation import Collator
from medalign.student.inspection.agreement import measure_alignment
from medalign.student.loading.student_loading import open_student
from medalign.student.training.training_run import train_student
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import StoreHeader, open_store
from medalign.teacher_cache.store.format.header import plan_digest
from medalign.teacher_cache.store.format.profiles import PROFILES, encode, has_patches
from medalign.teacher_cache.store.writing.writer import StoreWriter
from students import OPTIONS, adapter_record, sample, trainable, write_images

NATIVE, GRID, WIDTH = PatchGrid(4, 4), PatchGrid(3, 3), 16


def write_store(out, samples, profile):
    """A store with one image for each sample, and features seeded by its number."""
    images = [item.images[0] for item in samples]
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(len(images), NATIVE.patches, WIDTH, generator=generator) + 0.5
    maps = torch.rand(len(images), NATIVE.patches, generator=generator)
    rows = encode(profile, features, maps, NATIVE, GRID)
    hashes = [image.image_hash for image in images]
    header = StoreHeader(
        teacher="phantom-tiny",
        weights_sha256="0" * 64,
        features="last-block",
        dtype="float32",
        image_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        geometry="pad",
        native_grid=NATIVE,
        grid=GRID,
        profile=profile,
        width=WIDTH,
        segments=(len(images),),
        shard_rows=2,
        plan_sha256=plan_digest(hashes),
        batch_size=2,
        threads=1,
        data_use="public",
        created_by="a test",
    )
    writer = StoreWriter.create(out, header, hashes)
    for shard in writer.pending():
        in_progress = writer.begin(shard)
        for row in header.shard_range(shard):
            in_progress.append(
                {name: values[row] for name, values in rows.arrays.items()},
                image_hash=hashes[row],
                pixel_hash=hashes[row],
                size=(32, 32),
                max_abs_dS=float(rows.max_abs_dS[row]),
            )
        in_progress.commit()
    writer.finish()
    return open_store(out), float(rows.max_abs_dS.max())


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    paths = write_images(tmp_path_factory.mktemp("images"), [(24, 24), (40, 20), (18, 30)])
    return [sample(f"Question {number}?", "yes", path) for number, path in enumerate(paths)]


def allowed(change: float) -> float:
    """Maximum change of L_vis if no entry of S changes by more than `change`; differences are at most 2."""
    return 4 * change + change**2 + 1e-6


@pytest.mark.parametrize("profile", PROFILES)
def test_measures_change_within_the_profiles_error(profile, samples, student_folder, tmp_path):
    student = open_student(student_folder, layers=[2], rotation="none")
    exact, _ = write_store(tmp_path / "exact.zarr", samples, "float32")
    store, change = write_store(tmp_path / "store.zarr", samples, profile)
    assert change <= {"float32": 0, "gram12": 5e-3, "int8": 2e-2}.get(profile, 1e-3)
    expected = measure_alignment(student, samples, exact, batch_size=2, progress=Silent())
    measured = measure_alignment(student, samples, store, batch_size=2, progress=Silent())
    for found, wanted in zip(measured, expected, strict=True):
        assert found.loss_vis == pytest.approx(wanted.loss_vis, abs=allowed(change))
        assert found.kl == pytest.approx(wanted.kl, abs=1e-6), "E_a is float32 in every profile"
        assert found.agreement == pytest.approx(wanted.agreement, abs=0.05)


@pytest.mark.parametrize("profile", ["gram16", "gram12"])
def test_a_gram_store_trains_both_losses(profile, samples, student_folder, tmp_path):
    logs = {}
    for name in ("float32", profile):
        store, change = write_store(tmp_path / f"{name}.zarr", samples, name)
        student = trainable(student_folder)
        data = AlignmentDataset(student, samples, store, max_length=400)
        batch = Collator(pad_token_id=0)([data[0], data[1]])
        assert {"E_v", "S"} & set(batch) == ({"E_v"} if has_patches(name) else {"S"})
        options = replace(OPTIONS, max_steps=3, per_device_train_batch_size=3)
        train_student(student, adapter_record(student), options, data, None, tmp_path / name, Silent())
        logs[name] = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
    terms = [[line for line in log if "loss_vis" in line] for log in logs.values()]
    assert len(terms[0]) == len(terms[1]) == 3
    for wanted, found in zip(*terms, strict=True):
        assert found["loss_vis"] == pytest.approx(wanted["loss_vis"], abs=allowed(change))
        assert found["loss_att"] == pytest.approx(wanted["loss_att"], abs=1e-4)
    assert terms[1][-1]["loss_vis"] < terms[1][0]["loss_vis"]

"""A run over a folder with all kinds of files completes, and every file has a row or a reason."""

from collections import Counter

import polars as pl
from medalign.pipeline.data.importers import ImportOptions, import_folder
from medalign.pipeline.data.importers.image_folders.folder import UNNAMEABLE
from medalign.progress import Silent
from medalign.teacher_cache.extraction.stage_one import ImageSource
from medalign.teacher_cache.store import open_store
from odd_files import fill, is_unreadable


def test_every_file_has_a_row_or_a_reason(run_extract, tmp_path):
    (tmp_path / "images").mkdir()
    outcomes = fill(tmp_path / "images")
    manifest = import_folder(tmp_path / "images", ImportOptions(), Silent())
    rows = manifest.images().select("image", "image_hash").rows()
    sources = [ImageSource(path=manifest.path_of(name), image_hash=digest) for name, digest in rows]
    report = run_extract(sources, tmp_path / "s.zarr", unreadable=manifest.unreadable, batch_size=16, shard_rows=64)
    assert report.images == len(sources)
    store = open_store(tmp_path / "s.zarr")
    good = [digest for name, digest in rows if outcomes[name][0].isdigit() and "pixels" not in outcomes[name]]
    bad = {digest: outcomes[name] for name, digest in rows if digest not in good}
    assert len(good) > 60
    assert len(bad) > 50
    assert store.missing(good) == []
    assert store.failures == bad

    failures = pl.read_parquet(tmp_path / "s.zarr" / "failures.parquet")
    unread = failures.filter(pl.col("image_hash").is_null())["reason"].to_list()
    expected = [UNNAMEABLE, *(outcome for name, outcome in outcomes.items() if is_unreadable(outcome))]
    assert Counter(unread) == Counter(expected)

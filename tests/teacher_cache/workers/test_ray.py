"""`--engine ray` on a simulated cluster of two nodes writes the same store as one process.

With MEDALIGN_KILLS set, the driver is killed on the way, too; that takes a minute for every kill.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import Moment, Zygote, records, torn
from medalign.errors import SettingsError, StoreError
from medalign.pipeline.data.importers.common import read_images
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.evaluation.batches.dispatch import WorkRequest
from medalign.pipeline.evaluation.evaluate import EvaluationRequest, run_evaluation
from medalign.progress import Silent
from medalign.teacher_cache.extraction.stage_one import ImageSource, TeacherRecipe
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.workers import ray_engine
from medalign.teacher_cache.workers.messages import ShardJob, WorkSettings
from medalign.teacher_cache.workers.pool import WorkerOrder
from students import write_images

pytest.importorskip("ray", reason="the extra `ray` is not installed")

SETTINGS = {"batch_size": 5, "shard_rows": 10}
KILLS = int(os.environ.get("MEDALIGN_KILLS", "0"))


@pytest.fixture(scope="module")
def cluster(forks) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    nodes, patched = Cluster(), pytest.MonkeyPatch()
    patched.setenv("MEDALIGN_FORKS", str(forks.address()))
    setup = {"num_cpus": 1, "setup_worker_path": str(Path(__file__).parents[2] / "ray_setup.py")}
    try:
        nodes.add_node(**setup, include_dashboard=False)
        nodes.add_node(**setup)
        nodes.wait_for_nodes()
    except Exception as error:  # Ray gives each of its processes 30 s, which a very busy machine exceeds
        nodes.shutdown()
        pytest.skip(f"Ray does not start here: {error}")
    yield nodes.address
    nodes.shutdown()
    patched.undo()


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_two_nodes_write_the_same_store(cluster, make_images, run_extract, phantom_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    images, out, notes = make_images(60), tmp_path / "s.zarr", Notes()
    recipe = TeacherRecipe(name="phantom-tiny", weights=str(phantom_weights))
    report = run_extract(images, out, teacher=recipe, engine="ray", workers=2, progress=notes, **SETTINGS)
    assert notes.notes == ["Ray: 2 workers on 2 nodes"]
    assert (report.workers, report.shards_done) == (2, 6)
    assert report.root_sha256 == run_extract(images, tmp_path / "local.zarr", **SETTINGS).root_sha256
    assert verify(out).ok
    with pytest.raises(SettingsError, match=r"3 workers need 3 CPUs, but the Ray cluster has 2: use fewer --workers"):
        run_extract(images, tmp_path / "t.zarr", teacher=recipe, engine="ray", workers=3, **SETTINGS)


def test_two_nodes_give_the_same_answers_as_one_process(cluster, student_folder, tmp_path, monkeypatch):
    """Evaluation with the same actors: both nodes answer, and write the same bytes as one process."""
    names = [path.name for path in write_images(tmp_path / "images", [(24, 24), (40, 20)])]
    columns = read_images(tmp_path / "images", names, Silent()).columns
    rows = [
        ManifestRow(question_id=f"q{n}", question="Is it?" * (1 + n % 3), answer="yes", answer_type="closed",
                    split="test", data_use="public", **columns[names[n % 2]])
        for n in range(11)
    ]  # fmt: skip
    Manifest.from_rows(rows, tmp_path / "images", "ray").write(tmp_path / "m.parquet")
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    found, notes = {}, Notes()
    for name, work in {"one": WorkRequest(threads=1), "ray": WorkRequest(threads=1, engine="ray", workers=2)}.items():
        request = EvaluationRequest(
            student=student_folder,
            manifest=tmp_path / "m.parquet",
            decode="nucleus",
            overrides=("decode.temperature=1.5",),
            batch_size=2,
            max_new_tokens=3,
            device="cpu",
            dtype="bfloat16",
            work=work,
        )
        run_evaluation(request, tmp_path / name, notes)
        found[name] = (tmp_path / name / "predictions.parquet").read_bytes()
    assert "Ray: 2 workers on 2 nodes" in notes.notes
    assert found["ray"] == found["one"]


@pytest.mark.skipif(not KILLS, reason="takes minutes: set MEDALIGN_KILLS to the number of kills")
def test_a_killed_driver(cluster, forks, make_images, run_extract, phantom_weights, tmp_path):
    images, out, draw = make_images(60), tmp_path / "s.zarr", random.Random(4)
    zygote = Zygote(forks, phantom_weights, images, tmp_path)
    by_ray = {"engine": "ray", "workers": 2, "environment": {"RAY_ADDRESS": cluster}}
    kept: dict[int, bytes] = {}
    for _ in range(KILLS):
        zygote.killed(out, Moment(out, draw, most=1), **by_ray)
        assert kept.items() <= records(out).items()
        kept = records(out)
        assert len(torn(out)) <= 2
    report = zygote.finish(out, **by_ray)
    zygote.close()
    assert report["done"] == 6 - len(kept)
    assert report["root"] == run_extract(images, tmp_path / "local.zarr", **SETTINGS).root_sha256


def test_a_node_that_cannot_see_the_files_is_named(tmp_path):
    """Without Ray: an actor reports which paths it cannot see."""

    class Elsewhere:
        @staticmethod
        def get(answers: list) -> list:
            return answers

    class Answer:
        def __init__(self, absent: list[Path]) -> None:
            self.absent = self
            self._absent = absent

        def remote(self, paths: list[Path]) -> tuple[str, list[Path]]:
            return "node-7", [path for path in paths if any(path.name.endswith(end) for end in self._absent)]

    image = ImageSource(tmp_path / "1.png", "a" * 64)
    image.path.touch()
    recipe = TeacherRecipe(name="phantom-tiny", weights=str(tmp_path / "gone"))
    order = WorkerOrder(
        store=tmp_path / "s.zarr", recipe=recipe, settings=WorkSettings(decode_workers=1, hash_key=None)
    )
    jobs = [ShardJob(0, "float16", (image,))]
    ray_engine._check_files(Elsewhere, [Answer([])], order, jobs)
    with pytest.raises(StoreError, match=rf"Ray node node-7 cannot see {tmp_path}: the store, images and weights"):
        ray_engine._check_files(Elsewhere, [Answer([".partial"])], order, jobs)
    with pytest.raises(StoreError, match=r"cannot see .*1\.png"):
        ray_engine._check_files(Elsewhere, [Answer([]), Answer(["1.png"])], order, jobs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png"], "the probe is gone"

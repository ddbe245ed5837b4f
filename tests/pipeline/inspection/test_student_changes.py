"""What changed between two students: against counts by hand, and nothing for a student and itself."""

from dataclasses import replace

import polars as pl
import pytest
from labs import hashes_of
from medalign.pipeline.align.measured_changes import MeasuredImages, MeasureRequest
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.inspection.student_changes import compare_answers, measure_changes
from medalign.progress import Silent
from students import write_images


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """24 images with two organs and a closed question each."""
    folder = tmp_path_factory.mktemp("images")
    paths = write_images(folder, [(24, 24)] * 24)
    rows = [
        ManifestRow(
            question_id=str(number),
            image=path.name,
            image_hash=name,
            pixel_hash=name,
            width=24,
            height=24,
            organ=("liver", "lung")[number % 2],
            question="Is it large?",
            answer=("yes", "no")[number // 2 % 2],
            answer_type="closed",
            split="anchors",
            data_use="public",
        )
        for number, (path, name) in enumerate(zip(paths, hashes_of(paths), strict=True))
    ]
    return Manifest.from_rows(rows, folder, "noise")


@pytest.fixture
def request_of(manifest, student_folder):
    hashes = manifest.frame["image_hash"].to_list()
    images = MeasuredImages(manifest=manifest, used=hashes, held_out=hashes[:4])
    return MeasureRequest(
        before=student_folder,
        after=student_folder,
        images={"anchors": images, "targets": replace(images, used=hashes[:4], held_out=())},
        limit=24,
        max_new_tokens=2,
        template="vicuna_v1",
        dtype="float32",
        device="cpu",
        seed=0,
    )


def test_a_student_and_itself_do_not_differ(request_of):
    measured = measure_changes(request_of, Silent())
    (answers,) = measured.answers  # no target is held out
    assert (answers.images, answers.questions, answers.changed) == ("anchors", 4, 0.0)
    assert (answers.low, answers.high) == (0.0, 0.0)
    found = {(probe.images, probe.labels, probe.stage) for probe in measured.probes}  # four targets are too few
    assert found == {("anchors", labels, stage) for labels in ("organ", "answers") for stage in ("tower", "projector")}
    assert all(probe.before == probe.after and probe.low == probe.high == 0 for probe in measured.probes)
    assert all(probe.sample == 24 and probe.floor == 0.5 for probe in measured.probes)


def test_nothing_is_loaded_without_images(request_of, tmp_path):
    assert not measure_changes(replace(request_of, limit=0, after=tmp_path), Silent()).answers


def test_a_failure_is_noted_and_does_not_lose_the_run(request_of, tmp_path):
    notes = Notes()
    measured = measure_changes(replace(request_of, after=tmp_path / "none"), notes)
    assert "none is not a model folder" in str(measured.failure)
    assert notes.notes[0].startswith("answers and probes could not be measured: ")


def test_changes_and_scores_are_those_counted_by_hand(manifest):
    asked = Manifest(manifest.frame.head(4), manifest.root, manifest.source)  # yes, yes, no, no
    before, after = ["yes", "no", "no", "yes"], ["yes", "yes", "no", "perhaps"]
    found = compare_answers("anchors", asked, before, after, seed=0)
    assert (found.changed, found.scored, found.score_before, found.score_after) == (0.5, 4, 0.5, 0.75)
    assert found.low < 0 < 0.25 < found.high  # of four images, so widened
    assert found.sentence().startswith("anchors: 50 % of 4 answers changed; score 0.500 before, 0.750 after (")
    unscored = Manifest(asked.frame.with_columns(pl.lit(None, pl.String).alias("answer")), manifest.root, "noise")
    assert compare_answers("anchors", unscored, before, after, seed=0).sentence().endswith("50 % of 4 answers changed")

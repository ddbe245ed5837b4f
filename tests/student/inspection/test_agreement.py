"""Agreement with the teacher for each question, compared with its components."""

import pytest
import torch
from medalign.progress import Silent
from medalign.student.alignment.losses import attention_alignment_loss, visual_alignment_loss
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.inspection.agreement import measure_alignment
from medalign.student.loading.student_loading import open_student
from medalign.teacher_cache.extraction.stage_one import ExtractionOptions, extract
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import MissingTeacherRow, open_store
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.forward import Teacher
from medalign.teacher_cache.teachers.towers import build_tower
from medalign.teacher_cache.workers.prefetch import ImageSource
from students import sample, write_images


def make_store(paths, out):
    tower = build_tower(teacher_spec("phantom-tiny")).eval()
    teacher = Teacher(
        spec=teacher_spec("phantom-tiny"),
        tower=tower,
        device=torch.device("cpu"),
        dtype="float32",
        weights_sha256="0" * 64,
    )
    sources = [ImageSource(path=item.path, image_hash=item.image_hash) for item in paths]
    extract(teacher, sources, out, ExtractionOptions(grid=PatchGrid(3, 3), data_use="public"))
    return open_store(out)


def test_measures_equal_those_of_a_single_forward_pass(student_folder, tmp_path):
    student = open_student(student_folder, layers=[2], rotation="none")
    paths = write_images(tmp_path / "images", [(24, 24), (40, 20), (18, 30)])
    samples = [sample(f"Question {number}?", "yes", path) for number, path in enumerate(paths)]
    store = make_store([item.images[0] for item in samples], tmp_path / "store.zarr")
    measured = measure_alignment(student, samples, store, batch_size=2, progress=Silent())
    assert [item.question_id for item in measured] == [item.question_id for item in samples]
    for item, found in zip(samples, measured, strict=True):
        target = store[item.images[0].image_hash]
        output = student.model(**Collator(pad_token_id=0)([encode_sample(student, item, with_answer=True)]))
        kl = attention_alignment_loss(output.layers[0].attention, target.E_a[None], "sum")
        loss_vis = visual_alignment_loss(cosine_matrix(output.layers[0].tokens), cosine_matrix(target.E_v[None]))
        assert found.loss_vis == pytest.approx(loss_vis.item(), abs=1e-5)
        assert found.kl == pytest.approx(kl.item(), abs=1e-5)
        assert found.loss_lm == pytest.approx((output.loss_lm / output.answer_tokens).item(), abs=1e-5)
        torch.testing.assert_close(found.attention, output.layers[0].attention[0].detach(), atol=1e-6, rtol=0)
        torch.testing.assert_close(found.teacher_attention, target.E_a)
        assert -1 <= found.agreement <= 1
        # L_vis is the gap of the means, the gap of the spreads, and what the correlation leaves; diagonals agree.
        spreads = found.similarity_spread, found.teacher_similarity_spread
        parts = (found.similarity_mean - found.teacher_similarity_mean) ** 2 + (spreads[0] - spreads[1]) ** 2
        parts += 2 * spreads[0] * spreads[1] * (1 - found.agreement)
        assert found.loss_vis == pytest.approx(parts * (9 - 1) / 9, abs=1e-5)
    assert len({found.kl for found in measured}) == 3


def test_an_image_without_targets_is_refused(student_folder, tmp_path):
    student = open_student(student_folder, layers=[2], rotation="none")
    known, unknown = (sample("?", "yes", path) for path in write_images(tmp_path / "images", [(24, 24), (30, 24)]))
    store = make_store([known.images[0]], tmp_path / "store.zarr")
    with pytest.raises(MissingTeacherRow, match="1 of 1 images have no row"):
        measure_alignment(student, [unknown], store, batch_size=1, progress=Silent())

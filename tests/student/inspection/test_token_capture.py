"""Image tokens at every stage, compared with transformers' own hidden states."""

import numpy as np
import pytest
import torch
from medalign.errors import InputError
from medalign.progress import Silent
from medalign.student.inputs.collation import Collator, encode_questions
from medalign.student.inspection.pixel_features import pixel_features
from medalign.student.inspection.token_capture import capture_teacher, capture_tokens
from medalign.student.loading.student_loading import open_student
from medalign.student.metrics.region_attention import cosine_agreement
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import open_store
from stores import write_store
from students import LAYER, sample, write_images

CHOSEN = torch.tensor([[0, 8, 4], [2, 2, 1], [7, 3, 5]])


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    paths = write_images(tmp_path_factory.mktemp("images"), [(24, 24), (40, 20), (18, 30)])
    return [sample("a much longer question?" * number, "yes", path) for number, path in enumerate(paths, start=1)]


def hidden_states(student, samples):
    """The input of every layer at image tokens: one image at a time, without hooks of ours."""
    found = []
    for item in samples:
        batch = Collator(pad_token_id=0)(encode_questions(student, [item]))
        batch.pop("labels")
        with torch.no_grad():
            output = student.model.llava(**batch, output_hidden_states=True)
        places = (batch["input_ids"][0] == student.image_token_id).nonzero().flatten()
        found.append([hidden[0, places] for hidden in output.hidden_states])
    return [torch.stack(layer) for layer in zip(*found, strict=True)]


def test_stages_are_the_hidden_states_at_image_tokens(student_folder, samples):
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    stages = {
        stage.name: stage for stage in capture_tokens(student, samples, CHOSEN, None, batch_size=2, progress=Silent())
    }
    assert list(stages) == ["pixels", "tower", "projector", "layer 1", "layer 2", "layer 3"]  # layer 0: the projector's
    for layer, tokens in enumerate(hidden_states(student, samples)[:4]):
        stage = stages[f"layer {layer}" if layer else "projector"]
        expected = np.stack([image[chosen].numpy() for image, chosen in zip(tokens, CHOSEN, strict=True)])
        np.testing.assert_allclose(stage.tokens, expected, atol=1e-5)
        moments = np.concatenate([tokens.numpy().mean(1), tokens.numpy().std(1)], axis=1)
        np.testing.assert_allclose(stage.pooled, moments, atol=1e-5)
        assert np.isnan(stage.agreement).all()
    projected = student.model.stock.model.multi_modal_projector(torch.from_numpy(stages["tower"].tokens))
    np.testing.assert_allclose(projected.detach().numpy(), stages["projector"].tokens, atol=1e-5)


def test_the_aligned_layer_is_read_after_w(student_folder, samples):
    student = open_student(student_folder, layers=[LAYER], rotation="full")
    with torch.no_grad():
        student.model.rotations[LAYER].weight.normal_(std=0.1)
    before = open_student(student_folder, layers=[LAYER], rotation="none")
    after, plain = (
        {
            stage.name: stage.tokens
            for stage in capture_tokens(which, samples, CHOSEN, None, batch_size=3, progress=Silent())
        }
        for which in (student, before)
    )
    rotated = student.model.rotations[LAYER](torch.from_numpy(plain[f"layer {LAYER}"])).detach().numpy()
    np.testing.assert_allclose(after[f"layer {LAYER}"], rotated, atol=1e-4)
    assert np.array_equal(after["layer 1"], plain["layer 1"])


def test_w_before_the_first_layer_makes_its_input_a_stage(student_folder, samples):
    student = open_student(student_folder, layers=[0], rotation="full")
    with torch.no_grad():
        student.model.rotations[0].weight.normal_(std=0.1)
    names = [s.name for s in capture_tokens(student, samples, CHOSEN, None, batch_size=3, progress=Silent())]
    assert names[:4] == ["pixels", "tower", "projector", "layer 0"]


def test_agreement_is_that_of_all_patches_with_the_teacher(student_folder, samples, tmp_path):
    hashes = [item.images[0].image_hash for item in samples]
    write_store(tmp_path / "s.zarr", range(3), hashes=hashes, grid=PatchGrid(3, 3))
    store = open_store(tmp_path / "s.zarr")
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    stages = capture_tokens(student, samples, CHOSEN, store, batch_size=2, progress=Silent())
    for layer, tokens in enumerate(hidden_states(student, samples)[1:4], start=1):
        (stage,) = (stage for stage in stages if stage.name == f"layer {layer}")
        S = cosine_matrix(torch.stack([store[image_hash].E_v for image_hash in hashes]))
        expected = [float(cosine_agreement(*pair)) for pair in zip(cosine_matrix(tokens), S, strict=True)]
        assert stage.agreement.tolist() == pytest.approx(expected, abs=1e-5)
    stage, E_a = capture_teacher(store, [s.images[0] for s in samples], CHOSEN, batch_size=2, progress=Silent())
    assert stage.tokens[1, 2].tolist() == store[hashes[1]].E_v[1].tolist()
    assert E_a.tolist() == [store[image_hash].E_a.tolist() for image_hash in hashes]


def test_tokens_that_are_not_finite_are_refused(student_folder, samples):
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    with torch.no_grad():
        student.model.decoder_layers[1].mlp.down_proj.weight[0, 0] = torch.inf
    with pytest.raises(InputError, match=r"tokens at the layer 2 are not finite \(float32\)\. Use --dtype bfloat16"):
        capture_tokens(student, samples, CHOSEN, None, batch_size=2, progress=Silent())


def test_pixel_features_are_means_of_parts_of_the_patch_and_its_neighbors():
    pixels = torch.rand(2, 3, 24, 24)
    features = pixel_features(pixels, PatchGrid(3, 3)).reshape(2, 9, 3, 12, 12)
    for row, column in ((0, 0), (1, 1), (2, 1)):
        found = features[1, row * 3 + column]
        for part_row, part_column in ((0, 0), (4, 7), (11, 11), (5, 2)):  # in quarters of a patch, from the neighbor
            y = min(max(row * 4 + part_row - 4, 0), 11) * 2  # edges are repeated
            x = min(max(column * 4 + part_column - 4, 0), 11) * 2
            expected = pixels[1, :, y : y + 2, x : x + 2].mean(dim=(1, 2))
            torch.testing.assert_close(found[:, part_row, part_column], expected)

"""The attention of one question to its images, compared with the weights of eager attention."""

import numpy as np
import pytest
import torch
from medalign.errors import InputError, SettingsError
from medalign.student.inputs.collation import encode_sample
from medalign.student.inputs.views import square_layout
from medalign.student.inspection.image_attention import ImageAttention, read_attention
from medalign.student.loading.student_loading import open_student
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.images import decode_given
from students import LAYER, sample, trainable, write_images

QUESTION = "Which of them is wide?"


@pytest.fixture(scope="module")
def student(student_folder):
    """A student with LoRA and W at layer 2."""
    return trained(student_folder)


def trained(folder):
    """LoRA and W start at zero, and are not zero here."""
    student = trainable(folder)
    student.model.eval()
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name or name.startswith("aligned."):
                parameter.normal_(std=0.05)
    return student


def eager_maps(student, paths):
    """Weights of eager attention [images, layers, N], one mean for each image token."""
    encoded = encode_sample(student, sample(QUESTION, "", *paths), with_answer=False)
    ids = encoded.input_ids.tolist()
    llava = student.model.llava
    llava.set_attn_implementation("eager")
    for layer in llava.get_decoder().layers:
        layer.self_attn.config = llava.get_decoder().config
    with torch.no_grad():
        weights = llava(
            input_ids=encoded.input_ids[None], pixel_values=encoded.pixel_values, output_attentions=True
        ).attentions
    positions = [position for position, token in enumerate(ids) if token == student.image_token_id]
    maps = []
    for number in range(len(paths)):
        columns = positions[number * 9 : (number + 1) * 9]
        rows = [position for position in range(columns[-1] + 1, len(ids)) if ids[position] != student.image_token_id]
        maps.append([[float(layer[0][:, rows, column].mean()) for column in columns] for layer in weights])
    return torch.tensor(maps)


def test_maps_equal_eager_attention_for_several_images(student_folder, tmp_path):
    student = trained(student_folder)  # of its own, because eager attention remains
    paths = write_images(tmp_path / "images", [(40, 20), (18, 30)])
    records = read_attention(student, [decode_given(path) for path in paths], QUESTION)
    expected = eager_maps(student, paths)
    torch.testing.assert_close(torch.stack([record.maps for record in records]), expected, atol=1e-5, rtol=0)
    assert (expected.std(dim=-1) > 1e-4).all()  # not uniform, so the comparison can fail
    for record, path_maps, size in zip(records, expected, [(40, 20), (18, 30)], strict=True):
        assert (record.width, record.height) == size
        assert record.layers == (0, 1, 2, 3)
        assert record.aligned_layers == (LAYER,)
        torch.testing.assert_close(record.mean, path_maps.mean(dim=0), atol=1e-5, rtol=0)
        assert record.shares == pytest.approx(path_maps.sum(dim=1).tolist(), abs=1e-5)


def test_chosen_layers_are_rows_of_all_layers(student, tmp_path):
    images = [decode_given(path) for path in write_images(tmp_path / "images", [(24, 24)])]
    (every,) = read_attention(student, images, QUESTION)
    (some,) = read_attention(student, images, QUESTION, (3, 1))
    assert some.layers == (3, 1)
    assert some.aligned_layers == ()
    torch.testing.assert_close(some.maps, every.maps[[3, 1]], atol=1e-6, rtol=0)


def record_of(maps, width, height):
    return ImageAttention(
        question=QUESTION, width=width, height=height, layers=(0, 1), aligned_layers=(), maps=maps,
        layout=square_layout(width, height, PatchGrid(3, 4)),
    )  # fmt: skip


def test_shares_on_padding_and_border_and_what_moved_are_sums_over_cells():
    maps = torch.rand(2, 12, generator=torch.Generator().manual_seed(0)) * 0.1
    wide, other = record_of(maps, 60, 18), record_of(maps.flip(1), 60, 18)
    outside = [token for token in range(12) if token // 4 != 1]  # rows of 20 pixels, the image in the middle
    for layer in range(2):
        expected = sum(float(maps[layer, token]) for token in outside) / float(maps[layer].sum())
        assert wide.padding_shares[layer] == pytest.approx(expected)
    mean = [float(value) for value in maps.mean(dim=0)]
    assert wide.has_padding
    assert wide.padding_share == pytest.approx(sum(mean[token] for token in outside) / sum(mean))
    assert wide.border_share == pytest.approx(1 - (mean[5] + mean[6]) / sum(mean))
    gained = sum(max(0, after - before) for before, after in zip(mean, mean[::-1], strict=True)) / sum(mean)
    assert other.moved_from(wide) == pytest.approx(gained)
    assert gained > 0.05
    square = record_of(maps, 30, 30)
    assert (square.has_padding, square.padding_share, square.padding_shares) == (False, 0, (0, 0))


def test_top_cells_have_the_boxes_of_their_tokens(student, tmp_path):
    """In a wide image, the upper and lower row of a 3x3 grid lie in the padding, except for a margin."""
    (path,) = write_images(tmp_path / "images", [(60, 18)])
    (record,) = read_attention(student, [decode_given(path)], QUESTION)
    cells = record.top_cells(9)
    assert sum(cell.share for cell in cells) == pytest.approx(1)
    assert [cell.share for cell in cells] == sorted((cell.share for cell in cells), reverse=True)
    mean = record.mean / record.mean.sum()
    for cell in cells:
        row, column = divmod(cell.token, 3)
        assert cell.box == (column * 20, row * 20 - 21, 20, 20)
        assert cell.is_padding == (row != 1)
        assert cell.share == pytest.approx(float(mean[cell.token]))
    assert record.top_cells(2) == cells[:2]


def test_a_summary_has_only_values_of_json(student, tmp_path):
    (path,) = write_images(tmp_path / "images", [(24, 24)])
    (record,) = read_attention(student, [decode_given(path)], QUESTION, [1, LAYER])
    summary = record.summary()
    assert summary["share_on_image"] == {"1": record.shares[0], "2": record.shares[1]}
    assert summary["mean_share_on_image"] == pytest.approx(float(record.mean.sum()))
    assert summary["aligned_layers"] == [LAYER]
    assert summary["top_cells"][0]["box"] == list(record.top_cells()[0].box)


@pytest.mark.parametrize(
    ("question", "layers", "images", "error", "message"),
    [
        ("Is it?", [4], 1, SettingsError, "no layer 4; its layers are 0 to 3"),
        ("Is it?", [-1, 7], 1, SettingsError, "no layer -1, 7; its layers are 0 to 3"),
        ("Is it?", [1, 1], 1, SettingsError, r"layers: \[1, 1\]: pass one or more layers, each of them once"),
        ("Is it?", [], 1, SettingsError, "pass one or more layers"),
        (" \n", None, 1, SettingsError, "the question is empty"),
        ("\udcff", None, 1, SettingsError, "not UTF-8"),
        ("Is it?", None, 0, InputError, "needs an image"),
        (
            "Is it? " * 80,
            None,
            1,
            InputError,
            r"the prompt has 7\d\d tokens, 9 of them for images, .* has 512 positions",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(student, question, layers, images, error, message):
    decoded = [decode_given(np.zeros((24, 24), np.uint8))] * images
    with pytest.raises(error, match=message):
        read_attention(student, decoded, question, layers)


def test_attention_that_is_not_finite_is_an_error(student_folder):
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    with torch.no_grad():
        student.model.decoder_layers[1].self_attn.q_proj.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="attention is not finite"):
        read_attention(student, [decode_given(np.zeros((24, 24), np.uint8))], "Is it?")

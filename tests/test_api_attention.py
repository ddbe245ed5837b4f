"""`Student.attend`: one image or several, checked arguments, and several threads at once."""

from concurrent.futures import ThreadPoolExecutor

import medalign
import numpy as np
import pytest
from medalign.errors import InputError, SettingsError
from PIL import Image

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 24, 24), dtype=np.uint8)


@pytest.fixture(scope="module")
def student(student_folder):
    return medalign.load_student(student_folder, template="plain", device="cpu")


def test_one_image_gives_a_record_and_several_give_one_each(student, tmp_path):
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    one = student.attend(tmp_path / "a.png", "Is it?")
    assert isinstance(one, medalign.ImageAttention)
    assert one.maps.shape == (4, 9)
    assert one.aligned_layers == ()
    (alone,) = student.attend([IMAGES[0]], "Is it?", layers=(np.int64(2), 0))
    assert alone.layers == (2, 0)
    assert alone.maps.allclose(one.maps[[2, 0]], atol=1e-6)
    first, second = student.attend([IMAGES[0], np.zeros((10, 30, 3), np.uint8)], "Is it?")
    assert not first.maps.allclose(one.maps, atol=1e-3)
    assert second.layout.views[0].box == (0, -10, 30, 30)


@pytest.mark.parametrize(
    ("image", "question", "layers", "error", "message"),
    [
        (IMAGES[0], 5, None, SettingsError, "question must be text, not int"),
        (IMAGES[0], "", None, SettingsError, "the question is empty"),
        (IMAGES[0], "Is it?", 3, SettingsError, r"layers must be a list of whole numbers such as \[3, 7\], not 3"),
        (IMAGES[0], "Is it?", "3,7", SettingsError, "layers must be a list of whole numbers .* not '3,7'"),
        (IMAGES[0], "Is it?", [True], SettingsError, "layers must be a list of whole numbers"),
        (IMAGES[0], "Is it?", [9], SettingsError, "no layer 9; its layers are 0 to 3"),
        (None, "Is it?", None, InputError, "an image cannot be of type NoneType"),
        ([], "Is it?", None, InputError, "needs an image"),
        ("absent.png", "Is it?", None, InputError, "cannot read absent.png"),
    ],
)
def test_wrong_arguments_are_named(student, image, question, layers, error, message):
    with pytest.raises(error, match=message):
        student.attend(image, question, layers)


def test_threads_that_attend_and_ask_do_not_disturb_one_another(student):
    calls = [lambda image=image: student.attend(image, "Is it?").maps for image in IMAGES]
    calls += [lambda image=image: student.ask(image, "Is it?", max_new_tokens=2) for image in IMAGES]
    expected = [call() for call in calls]
    with ThreadPoolExecutor(8) as pool:
        found = [task.result() for task in [pool.submit(call) for call in calls]]
    assert all(map(np.array_equal, found[:4], expected[:4]))
    assert found[4:] == expected[4:]
